"""Smoothed activations of a float TFLite graph: channels that are wide beside the others of their tensor are narrowed in the
layer that makes them, whose weights have a scale for each output, and the layers that read them take the width over.

As SmoothQuant (Xiao et al. 2022, arXiv:2211.10438) does it before matrix products, here between convolutions and without an
operator more.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from packager.compress.quantize.tflite_ranges import tensor_values
from packager.compress.tflite_channels import Channels, by_channel, rescale, scalable
from packager.tflite_model import constant, text, to_bytes

if TYPE_CHECKING:
    import numpy as np

    from packager.compress.quantize.tflite_ranges import Samples

    Array = np.ndarray[Any, Any]

_MOST_SAMPLES = 32
_STRENGTHS = (0.25, 0.5, 0.65, 0.8, 0.9, 1.0)  # of the width that goes into the readers' weights
_PAYS = 0.9  # of the noise before: what takes less away is not worth other weights
_LEAST = 1e-5


def smooth_tflite(model: Any, feeds: Samples) -> int:
    """Scales channels so that rounding adds the least noise to what the layers that read them give; of how many tensors, or
    groups of tensors that are added up. For weights with a scale per channel. The function stays the same.
    """
    groups = [one for one in scalable(model) if not one.clips]
    if not groups:
        return 0
    seen = _seen(model, groups, feeds)
    done = 0
    for one in groups:
        scale = _best(model, one, seen)
        if scale is not None:
            rescale(model, one, scale)
            done += 1
    return done


@dataclasses.dataclass
class _Seen:
    """Of a tensor: the least and the greatest value, and the mean square, of each channel."""

    low: Array
    high: Array
    power: Array


def _seen(model: Any, groups: list[Channels], feeds: Samples) -> dict[int, _Seen]:
    import numpy as np

    tensors = model.subgraphs[0].tensors
    names = {index: text(tensors[index].name) for one in groups for index in one.tensors}
    found: dict[int, _Seen] = {}
    count = 0
    for value in tensor_values(to_bytes(model), feeds(_MOST_SAMPLES)):
        count += 1
        for index, name in names.items():
            rows = value(name)
            rows = rows.reshape(-1, rows.shape[-1])
            low, high, power = rows.min(axis=0), rows.max(axis=0), (rows.astype(np.float64) ** 2).mean(axis=0)
            one = found.setdefault(index, _Seen(low, high, np.zeros_like(power)))
            one.low, one.high, one.power = np.minimum(one.low, low), np.maximum(one.high, high), one.power + power
    for one in found.values():
        one.power /= count
    return found


def _best(model: Any, one: Channels, seen: dict[int, _Seen]) -> Array | None:
    """What the channels are best divided by; None where that buys too little."""
    import numpy as np

    widths = np.max([np.maximum(-seen[index].low, seen[index].high) for index in one.tensors], axis=0)
    taken = np.max([abs(by_channel(model, layer, layer.in_axis)).max(axis=1) for layer in one.readers], axis=0)
    alive = (widths > _LEAST) & (taken > _LEAST)  # a channel that is never seen, or never read, stays as it is
    if not alive.any():
        return None
    least, found = _PAYS * _noise(model, one, seen, np.ones_like(widths)), None
    for strength in _STRENGTHS:
        scale = np.maximum(widths, _LEAST) ** strength / np.maximum(taken, _LEAST) ** (1 - strength)
        scale = np.where(alive, scale / np.exp(np.log(scale[alive]).mean()), 1.0)
        noise = _noise(model, one, seen, scale)
        if noise < least:
            least, found = noise, scale
    return found


def _noise(model: Any, one: Channels, seen: dict[int, _Seen], scale: Array) -> float:
    """The power of what rounding the tensors and the readers' weights adds to what the readers give, summed over outputs.

    Uniform rounding has the variance step^2 / 12 (Bennett 1948); errors are taken to be independent.
    """
    import numpy as np

    rounding = 0.0
    for index in one.tensors:
        low = min(float((seen[index].low / scale).min()), 0.0)
        high = max(float((seen[index].high / scale).max()), 0.0)
        rounding += ((high - low) / 255) ** 2 / 12
    total = 0.0
    for layer in one.readers:
        rows = by_channel(model, layer, layer.in_axis).astype(np.float64) * scale[:, None]
        total += rounding * float((rows**2).sum())
        power = seen[int(layer.op.inputs[0])].power / scale**2
        if layer.in_axis == layer.out_axis:  # depthwise: a scale for each input, whatever its width
            continue
        outputs = by_channel(model, layer, layer.out_axis)
        per_output = rows.size // outputs.shape[0] // len(rows)  # places of the window
        steps = _widest(model, layer, scale) / 127
        total += float((steps**2).sum()) / 12 * per_output * float(power.sum())
    return total


def _widest(model: Any, layer: Any, scale: Array) -> Array:
    """Each output's largest absolute weight, were the input channels multiplied with `scale`."""
    import numpy as np

    values = constant(model, model.subgraphs[0].tensors[layer.weights])
    shape = [-1 if place == layer.in_axis else 1 for place in range(values.ndim)]
    scaled = np.moveaxis(abs(values) * scale.reshape(shape), layer.out_axis, 0)
    widest: Array = scaled.reshape(len(scaled), -1).max(axis=1)
    return widest
