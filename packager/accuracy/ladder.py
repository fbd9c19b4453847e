"""Mixed precisions from most INT8 to least, by the noise that each leaves: what a search may bisect over."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from packager.compress.onnx_layers import Int8Share

if TYPE_CHECKING:
    from packager.accuracy.sensitivity import Sensitivity
    from packager.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Rung:
    """A recipe that leaves some layers in float, and the noise in its outputs for a few calibration samples."""

    words: str
    recipe: Recipe
    noise: float
    share: Int8Share
    why: str = ""  # the recipe breaks the quantiser
    digest: str = ""  # of the model: the same where the recipe changed nothing


def foreseen(root: Rung, told: Sequence[Sensitivity], order: Sequence[Sensitivity]) -> list[Rung]:
    """One layer of `order` in float, two, and so on to all of them, of `root`, whose layers cost what is `told`.

    No rung is measured. What layers alone leave in the outputs adds up, as independent errors do, and all of them together
    leave what `root` has: a part of the layers has its part of that.
    """
    total = sum(one.noise for one in told)
    macs, weights = (max(1, sum(getattr(one.layer, key) for one in told)) for key in ("macs", "weights"))
    left, share, names, found = total, root.share, [], []
    for one in order:
        names.append(one.layer.name)
        left -= one.noise
        share = Int8Share(share.macs - one.layer.macs / macs, share.weights - one.layer.weights / weights)
        words, recipe = floating(root.recipe, names)
        found.append(Rung(words, recipe, root.noise * max(0.0, left) / total if total else 0.0, share))
    return found


def floating(root: Recipe, names: Sequence[str]) -> tuple[str, Recipe]:
    """A recipe with these layers left in float too, and its words."""
    words = f"{len(names)} layer{'s' if len(names) > 1 else ''} in float"
    if root.equalize:
        words += ", equalised"
    return words, dataclasses.replace(root, exclude=(*root.exclude, *names))


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
