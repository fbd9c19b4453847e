"""Small questions about an ONNX graph: constants by name, attributes, labels."""

from __future__ import annotations

from typing import Any

_THROUGH = ("Identity",)


class Constants:
    """The constants that a graph sees: its initialisers, Constant nodes, and those of the graphs around it."""

    def __init__(self, graph: Any, outer: Constants | None = None) -> None:
        self._outer = outer
        self._tensors: dict[str, Any] = {tensor.name: tensor for tensor in graph.initializer}
        self._same: dict[str, str] = {}
        for node in graph.node:
            if node.op_type == "Constant" and node.output:
                self._tensors[node.output[0]] = node
            elif node.op_type in _THROUGH:
                self._same[node.output[0]] = node.input[0]

    def get(self, name: str) -> Any:
        """The value as an array, or None when the name is no constant."""
        import onnx

        found = self._find(name)
        if found is None:
            return None
        if isinstance(found, onnx.NodeProto):
            return _constant_value(found)
        return onnx.numpy_helper.to_array(found)

    def dtype(self, name: str) -> str:
        """The numpy name of a constant's type, "" when it is none."""
        value = self.get(name)
        return "" if value is None else str(value.dtype.name)

    def _find(self, name: str) -> Any:
        name = self._same.get(name, name)
        if name in self._tensors:
            return self._tensors[name]
        return self._outer._find(name) if self._outer is not None else None  # noqa: SLF001 - another of this class


def _constant_value(node: Any) -> Any:
    import numpy as np
    import onnx

    for one in node.attribute:
        if one.name == "value":
            return onnx.numpy_helper.to_array(one.t)
        if one.name in ("value_int", "value_ints"):
            return np.asarray(onnx.helper.get_attribute_value(one), dtype="int64")
        if one.name in ("value_float", "value_floats"):
            return np.asarray(onnx.helper.get_attribute_value(one), dtype="float32")
    return None


def attribute(node: Any, name: str, default: Any) -> Any:
    """A node's attribute, text decoded; `default` when it has none of the name."""
    import onnx

    for one in node.attribute:
        if one.name == name:
            value = onnx.helper.get_attribute_value(one)
            return value.decode() if isinstance(value, bytes) else value
    return default


def input_at(node: Any, index: int) -> str:
    """The name of an input, "" where the node has none there."""
    return node.input[index] if len(node.input) > index else ""


def node_label(node: Any) -> str:
    """The node's name, or that of its first output."""
    return str(node.name or (node.output[0] if node.output else node.op_type))


def users(graph: Any) -> dict[str, list[Any]]:
    """The nodes that read each tensor, in this graph."""
    found: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
    return found


def producers(graph: Any) -> dict[str, Any]:
    """The node that writes each tensor, in this graph."""
    return {name: node for node in graph.node for name in node.output if name}
