"""LSTMs and plain RNNs step by step, for runtimes whose own keep their state from one inference to the next.

An ONNX LSTM begins with the state that it is given, zeros by default, in every inference. LiteRT's begins where the one before
has ended, so the second sample is computed as if it followed the first.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError
from packager.onnx_model import lift_constants, move_opset, opset

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

MOST_STEPS = 512  # of all directions: each is some ten operators
_SPLITS = 13  # the opset since which Split takes its sizes as an input
_PLAIN = {
    "activation_alpha",
    "activation_beta",
    "clip",
    "input_forget",
    "layout",
}  # attributes that change what is computed
_INPUTS = 8  # X, W, R, B, sequence_lens, initial_h; an LSTM's initial_c and P
_USUAL = {"LSTM": [b"Sigmoid", b"Tanh", b"Tanh"], "RNN": [b"Tanh"]}  # activations of a direction


def unroll(model: Any) -> tuple[Any, int]:
    """The model with its LSTMs and RNNs of known lengths as matrix products and gates, and how many there were. Those with
    peepholes, lengths of their own for each sample, or other activations than the standard's defaults stay.

    The equations are those of the ONNX operators. LSTM: gates in the order i, o, f, c; C = f * C + i * c; H = o * tanh(C).
    RNN: H = tanh(x W + H R + b).
    """
    if not any(node.op_type in _USUAL for node in model.graph.node):
        return model, 0
    from onnx import shape_inference

    try:
        model = lift_constants(move_opset(model, max(opset(model), _SPLITS)))
    except ConvertError:
        return model, 0
    shapes = _shapes(shape_inference.infer_shapes(model, data_prop=True))
    constants = {one.name: one for one in model.graph.initializer}
    done = 0
    for place in reversed(range(len(model.graph.node))):
        node = model.graph.node[place]
        layer = _layer(node, shapes, constants) if node.op_type in _USUAL else None
        if layer is not None:
            made = _Writer(model, layer).write()
            del model.graph.node[place]
            for offset, one in enumerate(made):
                model.graph.node.insert(place + offset, one)
            done += 1
    return model, done


@dataclasses.dataclass(frozen=True)
class _Layer:
    """One LSTM or RNN: its weights by direction, and the states that it begins with (None for zeros)."""

    node: Any
    steps: int
    batch: int
    hidden: int
    weights: tuple[Array, Array, Array]  # W, R and the sum of both biases: directions first
    begin: tuple[str, str]
    reverse: tuple[bool, ...]


def _shapes(model: Any) -> dict[str, list[int]]:
    values = [*model.graph.input, *model.graph.value_info, *model.graph.output]
    return {one.name: [int(dim.dim_value) for dim in one.type.tensor_type.shape.dim] for one in values}


def _layer(node: Any, shapes: dict[str, list[int]], constants: dict[str, Any]) -> _Layer | None:
    import numpy as np
    from onnx import helper, numpy_helper

    settings = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    inputs = [*node.input, *[""] * (_INPUTS - len(node.input))]
    shape = shapes.get(inputs[0], [])
    names = [name for name in inputs[1:4] if name]
    if any(settings.get(key) for key in _PLAIN) or inputs[4] or inputs[7] or any(one not in constants for one in names):
        return None
    usual = _USUAL[node.op_type]
    direction = settings.get("direction", b"forward").decode()
    reverse = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}[direction]
    if settings.get("activations", usual * len(reverse)) != usual * len(reverse):
        return None
    if len(shape) != 3 or not all(shape) or shape[0] * len(reverse) > MOST_STEPS:  # noqa: PLR2004 - steps, batch, inputs
        return None
    w, r, *rest = (numpy_helper.to_array(constants[name]) for name in names)
    hidden = int(settings.get("hidden_size", r.shape[-1]))
    bias = rest[0].reshape(len(reverse), 2, -1).sum(axis=1) if rest else np.zeros(w.shape[:2], w.dtype)
    begin = tuple("" if name and _is_zero(constants.get(name)) else name for name in inputs[5:7])
    return _Layer(node, shape[0], shape[1], hidden, (w, r, bias), (begin[0], begin[1]), reverse)


def _is_zero(tensor: Any) -> bool:
    from onnx import numpy_helper

    return tensor is not None and not numpy_helper.to_array(tensor).any()


class _Writer:
    """Writes the nodes of one layer; constants go into the model."""

    def __init__(self, model: Any, layer: _Layer) -> None:
        self._graph, self._layer = model.graph, layer
        self._name = layer.node.name or layer.node.output[0] or layer.node.output[1]
        self._nodes: list[Any] = []
        self._count = 0

    def write(self) -> list[Any]:
        """In their order."""
        layer = self._layer
        steps, batch, hidden = layer.steps, layer.batch, layer.hidden
        whole, last, cells = [], [], []
        flat = self._reshape(layer.node.input[0], [steps * batch, -1])
        for place, backwards in enumerate(layer.reverse):
            rows, cell = self._direction(place, flat, backwards)
            joined = self._op("Concat", rows, axis=0) if len(rows) > 1 else rows[0]
            whole.append(self._reshape(joined, [steps, 1, batch, hidden]))
            last.append(self._reshape(rows[0 if backwards else -1], [1, batch, hidden]))
            if cell:
                cells.append(self._reshape(cell, [1, batch, hidden]))
        for output, parts, axis in zip(layer.node.output, (whole, last, cells), (1, 0, 0), strict=False):
            if output and len(parts) > 1:
                self._op("Concat", parts, output=output, axis=axis)
            elif output:  # onnx2tf lowers no join of one
                self._op("Identity", parts, output=output)
        return self._nodes

    def _direction(self, place: int, flat: str, backwards: bool) -> tuple[list[str], str]:
        """What each step gives, in the order of time, and the last cell."""
        layer = self._layer
        w, r, bias = (one[place] for one in layer.weights)
        seen = self._op("Gemm", [flat, self._constant("W", w), self._constant("B", bias)], transB=1)
        parts = self._split(seen, [layer.batch] * layer.steps, axis=0)
        again = self._constant("R", r)
        h, c = (self._begin(name, place) for name in layer.begin)
        rows = [""] * layer.steps
        for step in reversed(range(layer.steps)) if backwards else range(layer.steps):
            gates = parts[step]
            if h:
                gates = self._op("Add", [gates, self._op("Gemm", [h, again], transB=1)])
            h, c = self._step(gates, c)
            rows[step] = h
        return rows, c

    def _step(self, gates: str, c: str) -> tuple[str, str]:
        if self._layer.node.op_type == "RNN":
            return self._op("Tanh", [gates]), ""
        hidden = self._layer.hidden
        opened, new = self._split(gates, [3 * hidden, hidden], axis=1)
        i, o, f = self._split(self._op("Sigmoid", [opened]), [hidden] * 3, axis=1)
        cell = self._op("Mul", [i, self._op("Tanh", [new])])
        if c:
            cell = self._op("Add", [self._op("Mul", [f, c]), cell])
        return self._op("Mul", [o, self._op("Tanh", [cell])]), cell

    def _begin(self, name: str, place: int) -> str:
        """The state that a direction begins with, batch x hidden; "" for zeros."""
        if not name:
            return ""
        if len(self._layer.reverse) > 1:
            name = self._split(name, [1] * len(self._layer.reverse), axis=0)[place]
        return self._reshape(name, [self._layer.batch, self._layer.hidden])

    def _op(self, kind: str, inputs: list[str], output: str = "", **settings: Any) -> str:
        from onnx import helper

        self._count += 1
        name = f"{self._name}/{kind}_{self._count}"
        self._nodes.append(helper.make_node(kind, inputs, [output or name], name=name, **settings))
        return output or name

    def _split(self, source: str, sizes: list[int], axis: int) -> list[str]:
        from onnx import helper

        if len(sizes) == 1:
            return [source]
        self._count += 1
        name = f"{self._name}/Split_{self._count}"
        outputs = [f"{name}_{place}" for place in range(len(sizes))]
        node = helper.make_node("Split", [source, self._whole("sizes", sizes)], outputs, name=name, axis=axis)
        self._nodes.append(node)
        return outputs

    def _reshape(self, source: str, shape: list[int]) -> str:
        return self._op("Reshape", [source, self._whole("shape", shape)])

    def _whole(self, name: str, values: list[int]) -> str:
        import numpy as np

        return self._constant(name, np.array(values, np.int64))

    def _constant(self, name: str, values: Array) -> str:
        import numpy as np
        from onnx import numpy_helper

        self._count += 1
        found = f"{self._name}/{name}_{self._count}"
        self._graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), found))
        return found
