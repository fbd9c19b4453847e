"""Channels of a float ONNX graph that may be scaled: what one operator is divided by, the operators that read it are
multiplied with, and the function stays the same. Channels lie on axis 1.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from packager.onnx_model import all_nodes

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    Array = np.ndarray[Any, Any]
    Shape = tuple[int, ...]

_WEIGHTS, _BIAS = 1, 2  # places among the inputs
_SAME = ("Relu", "LeakyRelu", "Identity", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
_SUMS = ("Add", "Sub", "Max", "Min")
_SHAPES = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")
_MAP, _ROW = 4, 2  # ranks of tensors that hold channels on axis 1


@dataclasses.dataclass(frozen=True)
class Scaled:
    """An operator with a constant that takes a scale: a layer's weights, or what a Mul or a Div has for each channel.

    `out_axis` and `in_axis` are the constant's; one and the same where each channel meets values of its own.
    """

    node: Any
    place: int
    out_axis: int
    in_axis: int

    @property
    def layer(self) -> bool:
        """Whether the constant are weights, which are rounded."""
        return self.node.op_type in ("Conv", "Gemm", "MatMul")


@dataclasses.dataclass
class Channels:
    """Tensors whose channels hold the same values but for sums, shifts and pools, the operators that make and those that read
    them, and the additions of constants between them. `clips` are the clamps from 0 among them (a ReLU6 behind a layer), for
    which scaling is not exact.
    """

    tensors: list[str]
    makers: list[Scaled]
    readers: list[Scaled]
    shifts: list[Any]
    clips: list[Any]


class Graph:
    """A model with the shapes of its tensors, and its constants, to be changed and written back."""

    def __init__(self, model: Any, shapes: Mapping[str, Shape]) -> None:
        from onnx import numpy_helper

        self.model, self._shapes = model, dict(shapes)
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self.uses = Counter(name for node in all_nodes(model.graph) for name in node.input if name)
        self.uses.update(value.name for value in model.graph.output)

    def shape(self, name: str) -> Shape:
        """Of a tensor or a constant; empty where it is not known."""
        return self.constants[name].shape if name in self.constants else self._shapes.get(name, ())

    def write(self, node: Any, place: int, values: Array) -> None:
        """Gives the operator another constant: the one that it has where no other reads that and its shape stays, else one of
        its own.
        """
        import numpy as np
        from onnx import numpy_helper

        name = node.input[place]
        values = np.ascontiguousarray(values, dtype=self.constants[name].dtype)
        if self.uses[name] > 1 or values.shape != self.constants[name].shape:
            self.uses[name] -= 1
            name = f"{node.output[0]}_own_{place}"
            self.uses[name] = 1
            node.input[place] = name
            self.model.graph.initializer.add().CopyFrom(numpy_helper.from_array(values, name))
        else:
            tensor = next(one for one in self.model.graph.initializer if one.name == name)
            tensor.CopyFrom(numpy_helper.from_array(values, name))
        self.constants[name] = values


def scalable(graph: Graph) -> list[Channels]:
    """All channels that have operators which take a scale on both sides, and nothing but ReLU, sums, pools and additions of
    constants between.
    """
    sets = _Sets(graph)
    sets.fixed |= {value.name for value in (*graph.model.graph.input, *graph.model.graph.output)}
    read = Counter(name for node in graph.model.graph.node for name in node.input if name)
    outer = {value.name for value in graph.model.graph.output}
    # What a branch or a loop reads from outside is no input of its node.
    sets.fixed |= {name for name, count in graph.uses.items() if count > read[name] + (name in outer)}
    for node in graph.model.graph.node:
        sets.take(node)
    return sets.found()


class _Sets:
    """Which tensors belong together, which operators make and read them, and which may not be scaled."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._parent: dict[str, str] = {}
        self.fixed: set[str] = set()
        self._made: list[tuple[str, Scaled]] = []
        self._read: list[tuple[str, Scaled]] = []
        self._shifts: list[tuple[str, Any]] = []
        self._clips: list[tuple[str, Any]] = []

    def take(self, node: Any) -> None:
        """Learns what an operator joins, or fixes."""
        layer = _layer(self._graph, node)
        if layer is not None:
            data = node.input[1 - layer.place] if node.op_type in ("Mul", "Div") else node.input[0]
            self._made.append((node.output[0], layer))
            if layer.in_axis >= 0:
                self._read.append((data, layer))
            else:
                self.fixed.add(data)
            return
        joined, shift = _joined(self._graph, node)
        if joined:
            for one in joined[1:]:
                self._parent[self._root(one)] = self._root(joined[0])
            if shift:
                self._shifts.append((joined[0], node))
            elif node.op_type == "Clip":
                self._clips.append((joined[0], node))
        loose = {*node.input, *node.output} - {*joined, *self._graph.constants, ""}
        self.fixed |= loose

    def found(self) -> list[Channels]:
        """Those that may be scaled, in the order of the graph."""
        fixed = {self._root(name) for name in self.fixed}
        groups: dict[str, Channels] = {}
        for name in [one for node in self._graph.model.graph.node for one in node.output]:
            if self._root(name) not in fixed:
                groups.setdefault(self._root(name), Channels([], [], [], [], [])).tensors.append(name)
        sides = ("makers", self._made), ("readers", self._read), ("shifts", self._shifts), ("clips", self._clips)
        for key, side in sides:
            for name, one in side:
                if self._root(name) in groups:
                    getattr(groups[self._root(name)], key).append(one)
        return [one for one in groups.values() if one.makers and one.readers]

    def _root(self, name: str) -> str:
        while self._parent.setdefault(name, name) != name:
            name = self._parent[name]
        return name


def _layer(graph: Graph, node: Any) -> Scaled | None:
    """The operator with its constant; an `in_axis` of -1 where the channels that it reads cannot be scaled. None for one
    without such a constant.
    """
    if node.op_type in ("Mul", "Div"):
        return _factor(graph, node)
    weights = graph.constants.get(node.input[_WEIGHTS]) if len(node.input) > _WEIGHTS else None
    bias = node.input[_BIAS] if len(node.input) > _BIAS else ""
    if weights is None or (bias and bias not in graph.constants) or graph.uses[node.input[_WEIGHTS]] > 1:
        return None
    told = {one.name: one for one in node.attribute}
    if node.op_type == "Conv" and len(graph.shape(node.output[0])) == _MAP:
        groups = told["group"].i if "group" in told else 1
        alone = groups == weights.shape[0] and weights.shape[1] == 1
        return Scaled(node, _WEIGHTS, 0, 1 if groups == 1 else 0 if alone else -1)
    plain = all(told[key].f == 1 for key in ("alpha", "beta") if key in told) and not (
        "transA" in told and told["transA"].i
    )
    if node.op_type == "Gemm" and plain and weights.ndim == _ROW:
        turned = bool("transB" in told and told["transB"].i)
        return Scaled(node, _WEIGHTS, 0, 1) if turned else Scaled(node, _WEIGHTS, 1, 0)
    if node.op_type == "MatMul" and weights.ndim == _ROW and len(graph.shape(node.output[0])) == _ROW:
        return Scaled(node, _WEIGHTS, 1, 0)
    return None


def _factor(graph: Graph, node: Any) -> Scaled | None:
    """A multiplication with, or a division by, one constant for each channel, or for all."""
    places = [place for place, name in enumerate(node.input) if name in graph.constants]
    if len(places) != 1 or (node.op_type == "Div" and places != [1]):
        return None
    shape = graph.shape(node.output[0])
    if _by_channel(graph.constants[node.input[places[0]]], shape) is None:
        return None
    return Scaled(node, places[0], 1, 1)


def _by_channel(constant: Array, shape: Shape) -> Array | None:
    """The constant with as many axes as the tensor, and a value for each channel; None where it differs along another axis."""
    import numpy as np

    if len(shape) not in (_MAP, _ROW) or constant.dtype.kind != "f":
        return None
    whole = (
        constant.reshape((1,) * (len(shape) - constant.ndim) + constant.shape) if constant.ndim <= len(shape) else None
    )
    if whole is None or any(size != 1 for axis, size in enumerate(whole.shape) if axis != 1):
        return None
    wide = (1, shape[1]) + (1,) * (len(shape) - 2)
    return np.broadcast_to(whole, wide) if whole.shape[1] in (1, shape[1]) else None


def _joined(graph: Graph, node: Any) -> tuple[list[str], bool]:
    """The inputs and outputs whose channels are scaled as one, and whether a constant is added to them that must follow."""
    given, out = [name for name in node.input if name], node.output[0]
    if len(graph.shape(out)) not in (_MAP, _ROW):
        return [], False
    same = (node.op_type in _SAME and len(node.output) == 1) or (node.op_type in _SHAPES and _flat(graph, node))
    if same or (node.op_type == "Clip" and _behind_layer(graph, node)):
        return [given[0], out], False
    if len(given) != 2:  # noqa: PLR2004 - two tensors, or one and a constant
        return [], False
    if node.op_type == "Mul":
        return _gated(graph, given, out), False
    return _summed(graph, node) if node.op_type in _SUMS else ([], False)


def _behind_layer(graph: Graph, node: Any) -> bool:
    """Whether it is a clamp from 0 of what a convolution gives to it alone, as ReLU6 is: in the middle of arithmetic (a
    HardSwish) it is none.
    """
    low = graph.constants.get(node.input[1]) if len(node.input) > 1 else None
    if low is None or low.size != 1 or float(low.reshape(-1)[0]) != 0 or graph.uses[node.input[0]] > 1:
        return False
    return any(one.op_type == "Conv" and one.output[0] == node.input[0] for one in graph.model.graph.node)


def _flat(graph: Graph, node: Any) -> bool:
    """Whether the operator only gives (N, C, 1, 1) another rank."""
    before, after = graph.shape(node.input[0]), graph.shape(node.output[0])
    return len(before) in (_MAP, _ROW) and before[1] == after[1] == math.prod(before[1:]) == math.prod(after[1:])


def _gated(graph: Graph, given: list[str], out: str) -> list[str]:
    """What is scaled in a map that is multiplied with one value for each channel: the map, not the values."""
    shape = graph.shape(out)
    if not set(given) & set(graph.constants):
        for one, gate in (given, given[::-1]):
            if graph.shape(one) == shape and graph.shape(gate)[2:] != shape[2:]:
                return [one, out]
    return []


def _summed(graph: Graph, node: Any) -> tuple[list[str], bool]:
    given, shape = list(node.input), graph.shape(node.output[0])
    fixed = [name for name in given if name in graph.constants]
    if not fixed:
        return ([*given, node.output[0]], False) if all(graph.shape(name) == shape for name in given) else ([], False)
    if node.op_type in ("Add", "Sub") and _by_channel(graph.constants[fixed[0]], shape) is not None:
        return [next(name for name in given if name not in fixed), node.output[0]], True
    return [], False


def by_output(graph: Graph, one: Scaled) -> Array:
    """A layer's weights by the channels that it gives: (channels, the rest)."""
    import numpy as np

    rows: Array = np.moveaxis(graph.constants[one.node.input[one.place]], one.out_axis, 0)
    return rows.reshape(len(rows), -1)


def by_channel(graph: Graph, one: Scaled) -> Array:
    """What the operator multiplies its input channels with: (channels, outputs, places of the window), of a division the
    inverse.
    """
    import numpy as np

    values = graph.constants[one.node.input[one.place]]
    if not one.layer:
        spread = _by_channel(values, graph.shape(one.node.output[0]))
        assert spread is not None  # noqa: S101 - else it were none of the readers
        row: Array = spread.reshape(-1, 1, 1)
        return 1 / row if one.node.op_type == "Div" else row
    first = (one.in_axis,) if one.in_axis == one.out_axis else (one.in_axis, one.out_axis)
    rows: Array = np.moveaxis(values, first, range(len(first)))
    return rows.reshape(*(rows.shape[:2] if len(first) > 1 else (len(rows), 1)), -1)


def rescale(graph: Graph, channels: Channels, scale: Array) -> None:
    """Divides what the makers give by `scale`, and multiplies what the readers have for each channel with it."""
    for one in channels.makers:
        _multiply(graph, one, one.out_axis, 1 / scale)
        if one.layer and len(one.node.input) > _BIAS and one.node.input[_BIAS]:
            bias = graph.constants[one.node.input[_BIAS]]
            graph.write(one.node, _BIAS, bias / scale.reshape(bias.shape if bias.size == scale.size else -1))
    for node in channels.shifts:
        place = next(index for index, name in enumerate(node.input) if name in graph.constants)
        spread = _by_channel(graph.constants[node.input[place]], graph.shape(node.output[0]))
        assert spread is not None  # noqa: S101 - else it were no shift
        graph.write(node, place, spread / scale.reshape(spread.shape))
    for one in channels.readers:
        _multiply(graph, one, one.in_axis, scale)


def _multiply(graph: Graph, one: Scaled, axis: int, factor: Array) -> None:
    values = graph.constants[one.node.input[one.place]]
    if not one.layer:
        spread = _by_channel(values, graph.shape(one.node.output[0]))
        assert spread is not None  # noqa: S101 - else it were none of the operators
        factor = factor.reshape(spread.shape)
        graph.write(one.node, one.place, spread / factor if one.node.op_type == "Div" else spread * factor)
        return
    shape = [-1 if place == axis else 1 for place in range(values.ndim)]
    graph.write(one.node, one.place, values * factor.reshape(shape))
