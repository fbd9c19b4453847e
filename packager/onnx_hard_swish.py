"""HardSwish, written as the arithmetic it stands for, becomes one node again.

Exporters for old opsets, and onnxruntime where it folds constants, write x · clip(x + 3, 0, 6) / 6 (Howard et al., 2019,
"Searching for MobileNetV3", section 5.2) as three or four nodes. Every one of them reads and writes a whole tensor, and
quantised each rounds again; runtimes that have the operator do it in one pass.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

HARD_SWISH_OPSET = 14  # the first that has the operator
_NEAR = 1e-4  # a sixth comes as 0.16666667, 0.1666 or 0.166667


@dataclasses.dataclass(frozen=True)
class _Found:
    """`last` gives the result of `source`; `nodes` are all that it takes."""

    source: str
    last: Any
    nodes: tuple[Any, ...]


def has_hard_swish(model: Any) -> bool:
    """Whether there is any to join."""
    return next(_all(_Graph(model)), None) is not None


def join_hard_swish(model: Any) -> int:
    """Puts HardSwish into the model, in place, and says how often. The main graph only."""
    import onnx

    graph = _Graph(model)
    found = list(_all(graph))
    for one in found:
        joined = onnx.helper.make_node("HardSwish", [one.source], list(one.last.output), name=one.last.name)
        nodes = model.graph.node
        place = next(index for index, node in enumerate(nodes) if node is one.last)
        nodes.insert(place, joined)
        for node in one.nodes:
            nodes.remove(node)
    return len(found)


class _Graph:
    """Who makes and who uses each value; the small constants."""

    def __init__(self, model: Any) -> None:
        import onnx

        self.model = model
        self.makers = {name: node for node in model.graph.node for name in node.output}
        self.uses: dict[str, int] = {value.name: 1 for value in model.graph.output}
        for node in model.graph.node:
            for name in node.input:
                self.uses[name] = self.uses.get(name, 0) + 1
            for attribute in node.attribute:  # what a subgraph uses is used
                for inner in attribute.g.node:
                    for name in inner.input:
                        self.uses[name] = self.uses.get(name, 0) + 1
        self._numbers: dict[str, np.ndarray[Any, Any]] = {
            tensor.name: onnx.numpy_helper.to_array(tensor)
            for tensor in model.graph.initializer
            if not tensor.dims or set(tensor.dims) == {1}
        }

    def number(self, name: str) -> float | None:
        """The constant's value, where it is one number."""
        value = self._numbers.get(name)
        return None if value is None else float(value.reshape(-1)[0])

    def made_by(self, name: str, *kinds: str) -> Any:
        """The node that makes it, if it is of these kinds and nobody else uses its result; else None."""
        node = self.makers.get(name)
        return node if node is not None and node.op_type in kinds and self.uses[name] == 1 else None

    def with_number(self, node: Any, value: float) -> str:
        """The other operand, where one is this number; else empty."""
        for one, other in (node.input, reversed(node.input)):
            number = self.number(one)
            if number is not None and abs(number - value) < _NEAR * max(1.0, abs(value)):
                return str(other)
        return ""


def _all(graph: _Graph) -> Iterator[_Found]:
    for node in list(graph.model.graph.node):
        found = _with_sigmoid(graph, node) or _scaled_last(graph, node) or _scaled_first(graph, node)
        if found is not None:
            yield found


def _with_sigmoid(graph: _Graph, last: Any) -> _Found | None:
    """With the gate as one node: x · HardSigmoid(x), its slope a sixth."""
    if last.op_type != "Mul":
        return None
    for source, other in (last.input, reversed(last.input)):
        gate = graph.made_by(other, "HardSigmoid")
        if gate is not None and gate.input[0] == source and _is_sixth(gate):
            return _Found(source, last, (last, gate))
    return None


def _is_sixth(node: Any) -> bool:
    given = {attribute.name: attribute.f for attribute in node.attribute}
    return bool(abs(given.get("alpha", 0.2) - 1 / 6) < _NEAR and abs(given.get("beta", 0.5) - 0.5) < _NEAR)


def _scaled_last(graph: _Graph, last: Any) -> _Found | None:
    """The sixth taken last: (x · clip(x + 3, 0, 6)) / 6."""
    product = graph.made_by(_sixth_of(graph, last), "Mul")
    if product is None:
        return None
    for source, other in (product.input, reversed(product.input)):
        clipped = _clipped(graph, other, source)
        if clipped:
            return _Found(source, last, (last, product, *clipped))
    return None


def _scaled_first(graph: _Graph, last: Any) -> _Found | None:
    """The sixth taken first: x · (clip(x + 3, 0, 6) / 6)."""
    if last.op_type != "Mul":
        return None
    for source, other in (last.input, reversed(last.input)):
        scaled = graph.made_by(other, "Div", "Mul")
        clipped = _clipped(graph, _sixth_of(graph, scaled), source) if scaled is not None else ()
        if clipped:
            return _Found(source, last, (last, scaled, *clipped))
    return None


def _sixth_of(graph: _Graph, node: Any) -> str:
    if node.op_type == "Mul":
        return graph.with_number(node, 1 / 6)
    if node.op_type == "Div" and graph.number(node.input[1]) == 6.0:  # noqa: PLR2004
        return str(node.input[0])
    return ""


def _clipped(graph: _Graph, name: str, source: str) -> tuple[Any, ...]:
    """The nodes of clip(source + 3, 0, 6); empty where it is something else."""
    clip = graph.made_by(name, "Clip") if name else None
    if clip is None or _limits(graph, clip) != (0.0, 6.0):
        return ()
    sum_ = graph.made_by(clip.input[0], "Add")
    return (clip, sum_) if sum_ is not None and graph.with_number(sum_, 3.0) == source else ()


def _limits(graph: _Graph, clip: Any) -> tuple[float | None, float | None]:
    if len(clip.input) > 1:
        low, high = (graph.number(name) for name in (*clip.input[1:], "", "")[:2])
        return low, high
    given = {attribute.name: attribute.f for attribute in clip.attribute}
    return given.get("min"), given.get("max")
