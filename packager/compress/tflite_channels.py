"""Channels of a float TFLite graph that may be scaled: what one layer is divided by, the layers that read it are multiplied
with, and the function stays the same.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from packager.tflite_model import constant, operator_name, schema, text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    Array = np.ndarray[Any, Any]

# The axes of the weights: their output channels, their input channels.
_AXES = {"CONV_2D": (0, 3), "DEPTHWISE_CONV_2D": (3, 3), "FULLY_CONNECTED": (0, 1), "MUL": (0, 0)}
FACTOR = "_narrowed"  # how what tflite_factors.py puts in is called, behind the name of what is multiplied
_SUMS = ("ADD", "SUB", "MAXIMUM", "MINIMUM")
_WINDOWS = ("MAX_POOL_2D", "AVERAGE_POOL_2D")
_DATA, _WEIGHTS, _BIAS = 0, 1, 2  # places among the inputs


@dataclasses.dataclass(frozen=True)
class Layer:
    """An operator with constant weights, of the graph that is being changed."""

    kind: str
    op: Any
    weights: int

    @property
    def bias(self) -> int:
        """Its tensor; -1 for none."""
        return int(self.op.inputs[_BIAS]) if len(self.op.inputs) > _BIAS else -1

    @property
    def out_axis(self) -> int:
        """Of the weights' output channels."""
        return _AXES[self.kind][0]

    @property
    def in_axis(self) -> int:
        """Of the weights' input channels."""
        return _AXES[self.kind][1]


@dataclasses.dataclass
class Channels:
    """Tensors whose channels hold the same values but for sums and pools, the layers that make and those that read them.

    `clips` are the operators with a fused ReLU6 among them, for which scaling is not exact.
    """

    tensors: list[int]
    makers: list[Layer]
    readers: list[Layer]
    clips: list[Any]


def scalable(model: Any, factors: Sequence[Layer] = ()) -> list[Channels]:
    """All channels of the first graph that have layers on both sides and nothing but them, sums, pools and pads between.

    Exact across no activation and ReLU. Layers that share their weights with others are none; `factors` count as layers.
    """
    graph = model.subgraphs[0]
    sets = _Sets(model, {id(layer.op): layer for layer in (*layers_with_weights(model), *factors)})
    sets.fixed |= {int(index) for side in (graph.inputs, graph.outputs) for index in side}
    for op in graph.operators:
        sets.take(op)
    return sets.found()


class _Sets:
    """Which tensors belong together, which layers make and read them, and which may not be scaled."""

    def __init__(self, model: Any, layers: Mapping[int, Layer]) -> None:
        self._model, self._layers = model, layers
        self._parent = list(range(len(model.subgraphs[0].tensors)))
        self.fixed: set[int] = set()
        self._made: list[tuple[int, Layer]] = []
        self._read: list[tuple[int, Layer]] = []
        self._clips: list[tuple[int, Any]] = []

    def take(self, op: Any) -> None:
        """Learns what an operator joins, or fixes."""
        inputs, outputs = [int(index) for index in op.inputs if index >= 0], [int(index) for index in op.outputs]
        layer, through = self._layers.get(id(op)), _through(self._model, op)
        if layer is not None:
            self._made.append((outputs[0], layer))
            if reads_each(self._model.subgraphs[0], layer):
                self._read.append((inputs[_DATA], layer))
            else:
                self.fixed.add(inputs[_DATA])
        elif through:
            for one in outputs + through[1:]:
                self._parent[self._root(one)] = self._root(through[0])
        else:
            self.fixed |= {*inputs, *outputs}
        kind = _activation(op)
        if kind == "RELU6":
            self._clips.append((outputs[0], op))
        elif kind not in ("", "RELU"):
            self.fixed.add(outputs[0])

    def found(self) -> list[Channels]:
        """Those that may be scaled, in the order of the file."""
        fixed = {self._root(index) for index in self.fixed}
        groups: dict[int, Channels] = {}
        for index in range(len(self._parent)):
            if self._root(index) not in fixed:
                groups.setdefault(self._root(index), Channels([], [], [], [])).tensors.append(index)
        for key, side in (("makers", self._made), ("readers", self._read), ("clips", self._clips)):
            for index, one in side:
                if self._root(index) in groups:
                    getattr(groups[self._root(index)], key).append(one)
        return [one for one in groups.values() if one.makers and one.readers]

    def _root(self, index: int) -> int:
        while self._parent[index] != index:
            index = self._parent[index]
        return index


def layers_with_weights(model: Any) -> list[Layer]:
    """Those of the first graph whose weights are constants of their own, and whose biases are constants."""
    graph = model.subgraphs[0]
    found = []
    for op in graph.operators:
        kind = operator_name(model, op)
        if kind not in _AXES or kind == "MUL":
            continue
        layer = Layer(kind, op, int(op.inputs[_WEIGHTS]))
        held = [layer.weights, *([layer.bias] if layer.bias >= 0 else [])]
        values = [constant(model, graph.tensors[index]) for index in held]
        if _unshared(model, layer.weights) and all(one is not None and one.dtype == "float32" for one in values):
            found.append(layer)
    return found


def reads_each(graph: Any, layer: Layer) -> bool:
    """Whether each input channel meets weights of its own: no groups, no depth multiplier, no flattened map."""
    data, weights = (graph.tensors[int(layer.op.inputs[place])] for place in (_DATA, _WEIGHTS))
    return bool(len(data.shape)) and int(data.shape[-1]) == int(weights.shape[layer.in_axis])


def _through(model: Any, op: Any) -> list[int]:
    """The inputs whose channels pass through to the output, scaled as they are; none where that is not so."""
    graph, kind = model.subgraphs[0], operator_name(model, op)
    inputs = [int(index) for index in op.inputs]
    if kind in ("RELU", *_WINDOWS) or (kind == "PAD" and _pads_space(model, op)):
        return inputs[:1]
    if kind == "RESHAPE":
        last = {
            [0, *(int(size) for size in graph.tensors[index].shape)][-1] for index in (inputs[0], int(op.outputs[0]))
        }
        return inputs[:1] if len(last) == 1 else []
    if kind in _SUMS:
        shapes = {tuple(int(size) for size in graph.tensors[index].shape) for index in (*inputs, *op.outputs)}
        fixed = any(constant(model, graph.tensors[index]) is not None for index in inputs)
        return [] if fixed or len(shapes) > 1 else inputs
    if kind == "MEAN":
        axes = constant(model, graph.tensors[inputs[1]])
        rank = len(graph.tensors[inputs[0]].shape)
        return [] if axes is None or any(int(axis) % rank == rank - 1 for axis in axes.ravel()) else inputs[:1]
    return []


def _pads_space(model: Any, op: Any) -> bool:
    amounts = constant(model, model.subgraphs[0].tensors[int(op.inputs[1])])
    return amounts is not None and not amounts[-1].any()


def _activation(op: Any) -> str:
    """The one that is fused into the operator; "" for none."""
    kinds = schema().ActivationFunctionType
    fused = getattr(op.builtinOptions, "fusedActivationFunction", kinds.NONE)
    names = {value: name for name, value in vars(kinds).items() if not name.startswith("_")}
    return "" if fused == kinds.NONE else str(names[fused])


def by_channel(model: Any, layer: Layer, axis: int) -> Array:
    """The weights with one row for each place on the axis."""
    import numpy as np

    values = constant(model, model.subgraphs[0].tensors[layer.weights])
    rows: Array = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
    return rows


def rescale(model: Any, channels: Channels, scale: Array) -> None:
    """Divides what the makers give by `scale`, and multiplies the readers' weights with it."""
    tensors = model.subgraphs[0].tensors
    for layer in channels.makers:
        _multiply(model, layer, layer.out_axis, 1 / scale)
        if layer.bias >= 0:
            write_bias(model, layer, constant(model, tensors[layer.bias]) / scale)
    for layer in channels.readers:
        _multiply(model, layer, layer.in_axis, scale)


def _multiply(model: Any, layer: Layer, axis: int, factor: Array) -> None:
    tensor = model.subgraphs[0].tensors[layer.weights]
    values = constant(model, tensor)
    shape = [-1 if place == axis else 1 for place in range(values.ndim)]
    model.buffers[tensor.buffer].data = _raw(values * factor.reshape(shape))


def write_bias(model: Any, layer: Layer, values: Array) -> None:
    """Gives the layer other biases, of its own where others share the old ones, and where it had none."""
    graph = model.subgraphs[0]
    old = graph.tensors[layer.bias] if layer.bias >= 0 else None
    if old is not None and (constant(model, old) == values.astype("float32")).all():
        return  # zeros that many layers share, as converters write them
    if old is not None and _unshared(model, layer.bias):
        model.buffers[old.buffer].data = _raw(values)
        return
    name = f"{text(graph.tensors[int(layer.op.outputs[0])].name)}/own_bias"
    layer.op.inputs = [*(int(index) for index in layer.op.inputs[:_BIAS]), add_constant(model, name, values)]


def add_constant(model: Any, name: str, values: Array) -> int:
    """A new constant of float32; its tensor's place."""
    fb = schema()
    buffer, tensor = fb.BufferT(), fb.TensorT()
    buffer.data = _raw(values)
    model.buffers.append(buffer)
    tensor.name, tensor.shape, tensor.type = name.encode(), list(values.shape), fb.TensorType.FLOAT32
    tensor.buffer = len(model.buffers) - 1
    model.subgraphs[0].tensors.append(tensor)
    return len(model.subgraphs[0].tensors) - 1


def _unshared(model: Any, index: int) -> bool:
    """Whether no other operator reads the constant, by this tensor or by another of the same buffer."""
    buffer = model.subgraphs[0].tensors[index].buffer
    users = sum(int(one) == index for op in model.subgraphs[0].operators for one in op.inputs)
    return users == 1 and sum(tensor.buffer == buffer for graph in model.subgraphs for tensor in graph.tensors) == 1


def _raw(values: Array) -> Array:
    import numpy as np

    raw: Array = np.frombuffer(np.ascontiguousarray(values, dtype=np.float32).tobytes(), dtype=np.uint8)
    return raw


def unclip(channels: Channels) -> None:
    """Takes every ReLU6 on the way for a ReLU."""
    for op in channels.clips:
        op.builtinOptions.fusedActivationFunction = schema().ActivationFunctionType.RELU
