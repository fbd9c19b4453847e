"""Smoothed activations of an exported graph, between its layers: channels that are wide beside the others are narrowed by what
makes them, and what reads them takes the width over. No operator more, and the same function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from packager.compress.channel_scales import Reader, Seen, best_scale
from packager.compress.torch_channels import Arrays, Channels, scalable, values_of

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_SAMPLES = 32
_CLAMPS = ("relu", "hardtanh")


def smooth(graph: Any, feeds: Sequence[Sequence[Any]]) -> int:
    """Scales channels, in place, so that rounding adds the least noise to what reads them; of how many tensors, or groups of
    tensors that are added up. For weights with a scale per channel.
    """
    shapes = {name: tuple(value.shape) for name, value in next(values_of(graph, feeds[:1])).items()}
    groups = [one for one in scalable(graph, shapes) if not one.clips]
    if not groups:
        return 0
    seen = _seen(graph, {node.name for one in groups for node in one.nodes}, feeds[:_MOST_SAMPLES])
    arrays = Arrays(graph, groups)
    done = 0
    for one in groups:
        readers = [
            Reader(arrays.rows(layer, layer.in_axis), seen[layer.node.args[0].name].power, layer.deep)
            for layer in one.readers
        ]
        scale = best_scale([seen[node.name] for node in _rounded(one)], readers)
        if scale is not None:
            arrays.rescale(one, scale)
            done += 1
    arrays.write()
    return done


def _rounded(group: Channels) -> list[Any]:
    """The nodes whose values are rounded: a layer's behind the ReLU that alone reads it."""

    def hidden(node: Any) -> bool:
        return len(node.users) == 1 and any(word in str(next(iter(node.users)).target) for word in _CLAMPS)

    return [node for node in group.nodes if not hidden(node)]


def _seen(graph: Any, names: set[str], feeds: Sequence[Sequence[Any]]) -> dict[str, Seen]:
    import numpy as np

    found: dict[str, Seen] = {}
    for values in values_of(graph, feeds):
        for name in names & values.keys():
            rows = values[name].transpose(0, 1).flatten(1).double()
            low, high, power = (one.numpy() for one in (rows.amin(1), rows.amax(1), (rows**2).mean(1)))
            one = found.setdefault(name, Seen(low, high, np.zeros_like(power)))
            one.low, one.high, one.power = np.minimum(one.low, low), np.maximum(one.high, high), one.power + power
    for one in found.values():
        one.power /= len(feeds)
    return found
