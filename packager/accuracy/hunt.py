"""Finds the layers that carry the noise without measuring each: groups first, the noisiest split again and again."""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from packager.accuracy.sensitivity import Sensitivity

if TYPE_CHECKING:
    from packager.compress.onnx_layers import Layer

_GROUPS = 8
_SINGLE = 16  # up to here every layer is measured
_REST = 0.05  # of the noise of all: what may lie in groups that were not split


def hunt(
    layers: Sequence[Layer], measure: Callable[[Sequence[Layer]], Sensitivity], late: Callable[[], bool]
) -> list[Sensitivity]:
    """What each layer costs, in the order of `layers`. `measure` quantises the layers of a group and no other; it is never
    called more often than there are layers.

    A layer of a group that was not split has its part of the group's noise; one for which there was no time, none.
    """
    size = -(-len(layers) // _GROUPS) if len(layers) > _SINGLE else 1
    found: dict[str, Sensitivity] = {}
    groups: list[tuple[float, int, Sequence[Layer]]] = []
    looks: list[int] = []  # sizes; their count orders groups of equal noise

    def look(group: Sequence[Layer]) -> None:
        told = measure(group)
        looks.append(len(group))
        part = told if len(group) == 1 else dataclasses.replace(told, noise=told.noise / len(group), broken="")
        found.update({layer.name: dataclasses.replace(part, layer=layer) for layer in group})
        if len(group) > 1:
            heapq.heappush(groups, (-told.noise, len(looks), group))

    for start in range(0, len(layers), size):
        if late():
            break
        look(layers[start : start + size])
    while groups and not late() and len(looks) + 1 < len(layers):
        total = sum(one.noise for one in found.values())
        if -sum(noise for noise, _, _ in groups) <= _REST * total:
            break
        _, _, group = heapq.heappop(groups)
        half = len(group) // 2
        for part in (group[:half], group[half:]):
            if not late():
                look(part)
    return [found.get(layer.name, Sensitivity(layer, 0.0, "", 0.0)) for layer in layers]
