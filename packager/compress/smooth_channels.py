"""Smoothed activations of a float ONNX graph between its convolutions: channels that are wide beside the others of their
tensor are narrowed by what makes them, and what reads them takes the width over. No operator more, and the same function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from packager.compress.channel_scales import Reader, Seen, best_scale
from packager.compress.onnx_channels import Channels, Graph, Scaled, by_channel, rescale, scalable
from packager.compress.onnx_values import tensor_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np

    from packager.calibration import CalibrationData
    from packager.recipe import Recipe

    Array = np.ndarray[Any, Any]

_MOST_SAMPLES = 32


def smooth_channels(model: Any, calibration: CalibrationData, recipe: Recipe) -> int:
    """Scales channels so that rounding adds the least noise to what reads them; of how many tensors, or groups of tensors that
    are added up. Nothing where the weights have one scale for all channels.
    """
    if not recipe.per_channel:
        return 0
    first = next(tensor_values(model, calibration.feeds(1)))
    graph = Graph(model, {name: value.shape for name, value in first.items() if hasattr(value, "shape")})
    groups = [one for one in scalable(graph) if not one.clips]
    if not groups:
        return 0
    names = {name for one in groups for name in one.tensors}
    seen = _seen(tensor_values(model, calibration.feeds(_MOST_SAMPLES), names))
    done = 0
    for one in groups:
        rounded = [seen[name] for name in _rounded(graph, one)]
        readers = [_reader(graph, reader, seen) for reader in one.readers]
        scale = best_scale(rounded, readers, symmetric=recipe.activation_type == "int8" and not recipe.asymmetric)
        if scale is not None:
            rescale(graph, one, scale)
            done += 1
    return done


def _seen(values: Iterable[Mapping[str, Array]]) -> dict[str, Seen]:
    import numpy as np

    found: dict[str, Seen] = {}
    count = 0
    for sample in values:
        count += 1
        for name, array in sample.items():
            rest = tuple(axis for axis in range(array.ndim) if axis != 1)
            low, high = array.min(axis=rest), array.max(axis=rest)
            power = (array.astype(np.float64) ** 2).mean(axis=rest)
            one = found.setdefault(name, Seen(low, high, np.zeros_like(power)))
            one.low, one.high, one.power = np.minimum(one.low, low), np.maximum(one.high, high), one.power + power
    for one in found.values():
        one.power /= count
    return found


def _rounded(graph: Graph, channels: Channels) -> list[str]:
    """The tensors of the group that are rounded: what layers give (behind their ReLU) and read, and sums of tensors."""
    inside = set(channels.tensors)
    taken = {one.node.input[0] for one in channels.readers if one.layer}
    taken |= {one.node.output[0] for one in channels.makers if one.layer}
    for node in graph.model.graph.node:
        if node.op_type == "Relu" and node.input[0] in taken and graph.uses[node.input[0]] == 1:
            taken = (taken - {node.input[0]}) | {node.output[0]}
        elif node.op_type == "Add" and not set(node.input) & set(graph.constants):
            taken.add(node.output[0])
    return [name for name in channels.tensors if name in taken & inside]


def _reader(graph: Graph, one: Scaled, seen: Mapping[str, Seen]) -> Reader:
    data = one.node.input[0] if one.layer else one.node.input[1 - one.place]
    return Reader(by_channel(graph, one), seen[data].power, own=one.in_axis == one.out_axis)
