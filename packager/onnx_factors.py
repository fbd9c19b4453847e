"""Constants that multiply, or are added, before convolutions go into their weights and biases.

PP-LCNetV3 (in PP-OCRv4) scales and shifts each activation by learned numbers. As operators of their own they read and write
a whole tensor, and quantised they round it each time.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from packager.onnx_model import all_nodes

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_WEIGHTS, _BIAS = 1, 2  # places among a convolution's inputs


def fold_factors(model: Any) -> int:
    """Folds them in place and says how many operators went. Exact: what is added goes only into convolutions without padding,
    since a pad of zeros is put after it; what multiplies goes past such an addition.
    """
    done = 0
    while True:
        graph = _Graph(model)
        gone = next((node for node in model.graph.node if _folded(graph, node)), None)
        if gone is None:
            _drop_unread(graph)
            return done
        model.graph.node.remove(gone)
        done += 1


def _drop_unread(graph: _Graph) -> None:
    kept = [tensor for tensor in graph.model.graph.initializer if tensor.name in graph.readers]
    del graph.model.graph.initializer[:]
    graph.model.graph.initializer.extend(kept)


@dataclasses.dataclass(frozen=True)
class _Affine:
    """An operator between a tensor and a constant. `place` is the constant's."""

    node: Any
    data: str
    place: int
    value: Array


class _Graph:
    """The constants, who makes each value, and who reads it."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self.makers = {name: node for node in model.graph.node for name in node.output}
        self.readers: dict[str, list[Any]] = {value.name: [None] for value in model.graph.output}
        for node in model.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
            for inner in (one for attribute in node.attribute for one in _graphs(attribute)):
                for name in (name for one in all_nodes(inner) for name in one.input):
                    self.readers.setdefault(name, []).append(None)  # what a subgraph reads is read

    def constant(self, name: str) -> Array | None:
        """A constant of float32; None for another."""
        from onnx import numpy_helper

        tensor = self.tensors.get(name)
        if tensor is None:
            return None
        values: Array = numpy_helper.to_array(tensor)
        return values if values.dtype == "float32" else None

    def affine(self, node: Any, *kinds: str) -> _Affine | None:
        """The operator, if it is of these kinds and one of its operands a constant."""
        if node is None or node.op_type not in kinds:
            return None
        for place, other in ((1, 0), (0, 1)):
            value = self.constant(node.input[place])
            if (
                value is not None
                and node.input[other] not in self.tensors
                and (place or node.op_type in ("Mul", "Add"))
            ):
                return _Affine(node, node.input[other], place, value)
        return None

    def convolutions(self, name: str) -> list[Any]:
        """The readers of a value where all are convolutions with weights of their own, and it is what they convolve; else
        none.
        """
        found = self.readers.get(name, [])
        return found if all(node is not None and self._plain(node, name) for node in found) else []

    def _plain(self, node: Any, name: str) -> bool:
        if node.op_type != "Conv" or node.input[0] != name or self.constant(node.input[_WEIGHTS]) is None:
            return False
        if any(len(self.readers[one]) > 1 for one in node.input[1:] if one):
            return False
        groups, dims = _groups(node), self.tensors[node.input[_WEIGHTS]].dims
        return groups == 1 or (groups == dims[0] and dims[1] == 1)

    def add(self, name: str, values: Array) -> str:
        """A new constant, or another value for the one of this name; the name."""
        if name not in self.tensors:
            self.tensors[name] = self.model.graph.initializer.add()
        self.write(name, values)
        return name

    def write(self, name: str, values: Array) -> None:
        """Replaces a constant."""
        from onnx import numpy_helper

        self.tensors[name].CopyFrom(numpy_helper.from_array(values.astype("float32"), name))


def _graphs(attribute: Any) -> list[Any]:
    return [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _folded(graph: _Graph, node: Any) -> bool:
    """Whether the operator's work is now done by what reads it; it may go then."""
    return _factor_folded(graph, node) or _shift_folded(graph, node)


def _factor_folded(graph: _Graph, node: Any) -> bool:
    import numpy as np

    factor = graph.affine(node, "Mul", "Div")
    if factor is None or (shift := _shift_after(graph, node)) is False:
        return False
    convolutions = graph.convolutions((node if shift is None else shift.node).output[0])
    values = [
        one for conv in convolutions if (one := _by_channel(graph, conv, factor.value)) is not None and np.all(one)
    ]
    if not convolutions or len(values) < len(convolutions):
        return False
    for conv, value in zip(convolutions, values, strict=True):
        _scale(graph, conv, 1 / value if node.op_type == "Div" else value)
    if shift is not None:  # a x + b = a (x + b / a)
        moved = shift.value.astype("float64") / factor.value if node.op_type == "Mul" else shift.value * factor.value
        shift.node.input[shift.place] = graph.add(f"{shift.node.output[0]}_unscaled", moved)
    _rewire(graph, node.output[0], factor.data)
    return True


def _shift_after(graph: _Graph, node: Any) -> Any:
    """The addition of a constant that alone reads what the operator gives; None where convolutions do, False for others."""
    found = graph.readers.get(node.output[0], [])
    if len(found) == 1 and found[0] is not None and found[0].op_type == "Add":
        return graph.affine(found[0], "Add") or False
    return None


def _shift_folded(graph: _Graph, node: Any) -> bool:
    import numpy as np

    shift = graph.affine(node, "Add", "Sub")
    convolutions = graph.convolutions(node.output[0]) if shift is not None else []
    if shift is None or not convolutions or any(_padded(conv) for conv in convolutions):
        return False
    values = [_by_channel(graph, conv, shift.value) for conv in convolutions]
    if any(value is None for value in values):
        return False
    for conv, value in zip(convolutions, values, strict=True):
        weights = graph.constant(conv.input[_WEIGHTS])
        assert weights is not None and value is not None  # noqa: S101, PT018 - else it were none of them
        rest = tuple(range(2, weights.ndim))
        sums = weights.astype(np.float64).sum(axis=rest)  # outputs, inputs
        added = sums[:, 0] * value if _groups(conv) > 1 else sums @ value
        _shift(graph, conv, -added if node.op_type == "Sub" else added)
    _rewire(graph, node.output[0], shift.data)
    return True


def _by_channel(graph: _Graph, conv: Any, value: Array) -> Array | None:
    """The constant as one number for each channel that the convolution reads; None where it differs along another axis."""
    import numpy as np

    dims = graph.tensors[conv.input[_WEIGHTS]].dims
    channels, rank = dims[1] * _groups(conv), len(dims)
    whole = (1,) * (rank - value.ndim) + value.shape
    row: Array = value.reshape(-1).astype(np.float64)
    if value.size == 1 and value.ndim <= rank:
        return np.repeat(row, channels)
    return row if whole == (1, channels, *(1,) * (rank - 2)) else None


def _scale(graph: _Graph, conv: Any, factor: Array) -> None:
    weights = graph.constant(conv.input[_WEIGHTS])
    assert weights is not None  # noqa: S101 - else it were none of the convolutions
    axis = 0 if _groups(conv) > 1 else 1
    shape = [-1 if place == axis else 1 for place in range(weights.ndim)]
    graph.write(conv.input[_WEIGHTS], weights * factor.reshape(shape))


def _shift(graph: _Graph, conv: Any, added: Array) -> None:
    bias = graph.constant(conv.input[_BIAS]) if len(conv.input) > _BIAS and conv.input[_BIAS] else None
    if bias is not None:
        graph.write(conv.input[_BIAS], bias + added)
        return
    del conv.input[_BIAS:]
    conv.input.append(graph.add(f"{conv.output[0]}_shift", added))


def _rewire(graph: _Graph, old: str, new: str) -> None:
    for node in graph.readers[old]:
        for place, name in enumerate(node.input):
            if name == old:
                node.input[place] = new


def _groups(conv: Any) -> int:
    return next((int(one.i) for one in conv.attribute if one.name == "group"), 1)


def _padded(conv: Any) -> bool:
    told = {one.name: one for one in conv.attribute}
    kind = told["auto_pad"].s if "auto_pad" in told else b"NOTSET"
    return kind not in (b"NOTSET", b"VALID") or (kind == b"NOTSET" and "pads" in told and any(told["pads"].ints))
