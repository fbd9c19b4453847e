"""What the channels of a rounded activation are best divided by, where the layers that read it take the width over.

SmoothQuant (Xiao et al. 2022, arXiv:2211.10438) does so before matrix products; here it is done between convolutions, too.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from packager.recipe import Recipe

    Array = np.ndarray[Any, Any]

_STRENGTHS = (0.25, 0.5, 0.65, 0.8, 0.9, 1.0)  # of the width that goes into the readers' weights
PAYS = 0.9  # of the noise before: what takes less away is not worth other weights
_LEAST = 1e-5


@dataclasses.dataclass
class Seen:
    """Of a tensor: the least and the greatest value, and the mean square, of each channel."""

    low: Array
    high: Array
    power: Array


@dataclasses.dataclass(frozen=True)
class Reader:
    """A layer that reads the channels: `weights` (channels, outputs, places of the window), `power` the mean square of each
    channel as it reads it. `own` where each channel meets weights that no other channel meets, so that their scale follows;
    such weights have one output.
    """

    weights: Array
    power: Array
    own: bool


def need_scale_per_channel(recipe: Recipe) -> None:
    """Raises ConvertError where the recipe smooths activations and gives weights one scale for all channels."""
    if recipe.smooth and not recipe.per_channel:
        raise ConvertError(
            "smoothed activations need weights with a scale per channel",
            expected="per_channel = true",
            fix="leave out smooth, or per_channel = false",
            code="no-recipe",
        )


def best_scale(
    seen: Sequence[Seen], readers: Sequence[Reader], *, symmetric: bool = False, pays: float = PAYS
) -> Array | None:
    """What the channels of these tensors, rounded with one step each, are best divided by; None where that buys too little.

    For weights of 8 bits with a scale per output channel. `symmetric` where zero lies in the middle of the tensors'
    ranges; `pays` is the share of the noise before that may be left at most.
    """
    import numpy as np

    if not seen or not readers:
        return None
    widths = np.max([np.maximum(-one.low, one.high) for one in seen], axis=0)
    taken = np.max([abs(one.weights).reshape(len(one.weights), -1).max(axis=1) for one in readers], axis=0)
    alive = (widths > _LEAST) & (taken > _LEAST)  # a channel that is never seen, or never read, stays as it is
    if not alive.any():
        return None
    least, found = pays * _noise(seen, readers, np.ones_like(widths), symmetric=symmetric), None
    for strength in _STRENGTHS:
        scale = np.maximum(widths, _LEAST) ** strength / np.maximum(taken, _LEAST) ** (1 - strength)
        scale = np.where(alive, scale / np.exp(np.log(scale[alive]).mean()), 1.0)
        noise = _noise(seen, readers, scale, symmetric=symmetric)
        if noise < least:
            least, found = noise, scale
    return found


def _noise(seen: Sequence[Seen], readers: Sequence[Reader], scale: Array, *, symmetric: bool) -> float:
    """The power of what rounding the tensors and the readers' weights adds to what the readers give, summed over outputs.

    Uniform rounding has the variance step^2 / 12 (Bennett 1948); errors are taken to be independent.
    """
    import numpy as np

    rounding = 0.0
    for one in seen:
        low = min(float((one.low / scale).min()), 0.0)
        high = max(float((one.high / scale).max()), 0.0)
        wide = 2 * max(high, -low) if symmetric else high - low
        rounding += (wide / 255) ** 2 / 12
    total = 0.0
    for reader in readers:
        rows = reader.weights.astype(np.float64) * scale[:, None, None]
        total += rounding * float((rows**2).sum())
        if reader.own:
            continue
        steps = abs(rows).max(axis=(0, 2)) / 127
        places = rows.shape[2]
        total += float((steps**2).sum()) / 12 * places * float((reader.power / scale**2).sum())
    return total
