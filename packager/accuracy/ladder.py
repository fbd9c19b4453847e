"""Mixed precisions from most INT8 to least, by the noise that each leaves: what a search may bisect over."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packager.accuracy.sensitivity import Sensitivity
    from packager.compress.onnx_layers import Int8Share
    from packager.recipe import Recipe

_EACH = 4  # up to here every count of layers is looked at
_MORE = 4 / 3


@dataclasses.dataclass(frozen=True)
class Rung:
    """A recipe that leaves some layers in float, and the noise in its outputs for a few calibration samples."""

    words: str
    recipe: Recipe
    noise: float
    share: Int8Share
    why: str = ""  # the recipe breaks the quantiser
    digest: str = ""  # of the model: the same where the recipe changed nothing


def counts(most: int) -> list[int]:
    """How many layers to leave in float: 1, 2, 3, 4, then by a third more, `most` at last."""
    found = list(range(1, min(_EACH, most) + 1))
    while found and found[-1] < most:
        found.append(min(most, round(found[-1] * _MORE)))
    return found


def front(rungs: Sequence[Rung]) -> list[Rung]:
    """Those that no other beats in both noise and multiply-adds in INT8; the most INT8, and the most noise, first."""
    found: list[Rung] = []
    for one in sorted(rungs, key=lambda one: (-one.share.macs, one.noise)):
        if not found or one.noise < found[-1].noise:
            found.append(one)
    return found


def first_enough(length: int, enough: Callable[[int], bool | None]) -> int | None:
    """The first place that is enough, by bisection; None where none is found. `enough` says None when the time is up."""
    low, high, found = -1, length, None
    while high - low > 1:
        middle = (low + high) // 2
        answer = enough(middle)
        if answer is None:
            return found
        if answer:
            high = found = middle
        else:
            low = middle
    return found


def ranked(told: Sequence[Sensitivity]) -> list[Sensitivity]:
    """The layers whose float costs least for what it saves: noise over their part of layers and multiply-adds."""
    macs = max(1, sum(one.layer.macs for one in told))
    return sorted(told, key=lambda one: -one.noise / (one.layer.macs / macs + 1 / len(told)))


def affordable(order: Sequence[Sensitivity], least: float, total: int) -> list[Sensitivity]:
    """Those, in their order, that can all be in float with at least this share of `total` multiply-adds left in INT8."""
    found: list[Sensitivity] = []
    taken = 0
    for one in order:
        if taken + one.layer.macs <= (1 - least) * total:
            taken += one.layer.macs
            found.append(one)
    return found
