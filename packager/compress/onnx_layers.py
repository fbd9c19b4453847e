"""The layers of an ONNX graph that multiply: their multiply-adds, their weights, and which of them are in INT8."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from packager.compress.onnx_values import tensor_values

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_COMPUTE = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_INTEGER = (
    "ConvInteger",
    "MatMulInteger",
    "QLinearConv",
    "QLinearMatMul",
    "DynamicQuantizeMatMul",
    "MatMulIntegerToFloat",
)
_EXACT = ("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "MaxPool", "Identity")
_CONV = 2  # rank of a weight before its window


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer that multiplies. `name` is what a recipe's `exclude` takes; `macs` are for one sample."""

    name: str
    operator: str
    macs: int
    weights: int


@dataclasses.dataclass(frozen=True)
class Int8Share:
    """The shares of multiply-adds and of weights (of layers that multiply) that are in INT8, 0 to 1."""

    macs: float
    weights: float

    def document(self) -> dict[str, float]:
        """For --json and the manifest."""
        return {"macs": round(self.macs, 6), "weights": round(self.weights, 6)}


def share_of(layers: Iterable[Layer], inside: Iterable[str]) -> Int8Share:
    """The share of the layers named in `inside`."""
    rows, names = list(layers), set(inside)
    macs, weights = sum(one.macs for one in rows), sum(one.weights for one in rows)
    taken = [one for one in rows if one.name in names]
    return Int8Share(
        sum(one.macs for one in taken) / macs if macs else 0.0,
        sum(one.weights for one in taken) / weights if weights else 0.0,
    )


def layers_of(model: Any, feed: Mapping[str, Array]) -> list[Layer]:
    """The layers, sized by running one sample: shapes that are free in the file are known then."""
    nodes = [node for node in model.graph.node if node.op_type in _COMPUTE]
    sizes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    wanted = {name for node in nodes for name in (*node.input[:2], node.output[0]) if name not in sizes}
    values = next(tensor_values(model, [feed], wanted))
    sizes |= {name: tuple(value.shape) for name, value in values.items() if hasattr(value, "shape")}
    constant = {tensor.name for tensor in model.graph.initializer}
    rows = []
    for node in nodes:
        left, right, out = (sizes[name] for name in (node.input[0], node.input[1], node.output[0]))
        held = sum(math.prod(sizes[name]) for name in node.input[:2] if name in constant)
        rows.append(Layer(node.name, node.op_type, _macs(node, left, right, out), held))
    return rows


def _macs(node: Any, left: tuple[int, ...], right: tuple[int, ...], out: tuple[int, ...]) -> int:
    if node.op_type == "Conv":
        return math.prod(out) * math.prod(right[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(left) * math.prod(right[1:])
    turned = any(one.name == "transA" and one.i for one in node.attribute)
    return math.prod(out) * (left[0] if turned else left[-1] if left else 1)


def int8_layers(model: Any) -> set[str]:
    """The names of the layers whose two factors both come out of INT8."""
    made_by = {name: node for node in model.graph.node for name in node.output}

    def quantised(name: str) -> bool:
        node = made_by.get(name)
        while node is not None and node.op_type in _EXACT:
            node = made_by.get(node.input[0])
        return node is not None and node.op_type == "DequantizeLinear"

    found = set()
    for node in model.graph.node:
        if node.op_type in _INTEGER:
            found.add(node.name.removesuffix("_quant"))
        elif node.op_type in _COMPUTE and all(quantised(name) for name in node.input[:2]):
            found.add(node.name)
    return found
