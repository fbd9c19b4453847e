"""The layer table in the user's terms: what became one layer, what multiplies in INT8, and why something does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packager.onnx_model import load_model
from packager.tensorrt.layers import Layer, Table

if TYPE_CHECKING:
    import onnx

FILE = "engine-layers.json"
FLOAT_MODEL = "the recipe quantises nothing"
LEFT = "left in float: no Q/DQ at its inputs"
HALF_DONE = "only one of its inputs is quantised"
BUILDER = "its inputs are quantised, the builder still multiplies in float: look at the board's own table"
_MULTIPLIES = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "Attention"})
_PASSES = frozenset({"Cast", "Identity", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze"})


def rows(table: Table, model: Path) -> list[dict[str, Any]]:
    """A row for each layer: kind, nodes (of the ONNX file), types (of its inputs), int8 (None where nothing multiplies), why
    (it is not in INT8, "" where it is).
    """
    graph = load_model(model, weights=False).graph
    nodes = {node.name: node for node in graph.node if node.name}
    makers = {name: node for node in graph.node for name in node.output}
    quantised = any(node.op_type == "DequantizeLinear" for node in graph.node)
    return [
        {
            "kind": layer.kind,
            "nodes": list(layer.nodes),
            "types": list(layer.inputs),
            "int8": layer.int8 if layer.computes else None,
            "why": _why(layer, nodes, makers, quantised=quantised),
        }
        for layer in table.layers
    ]


def _why(layer: Layer, nodes: dict[str, onnx.NodeProto], makers: dict[str, onnx.NodeProto], *, quantised: bool) -> str:
    if not layer.computes or layer.int8:
        return ""
    if not quantised:
        return FLOAT_MODEL
    ours = [nodes[name] for name in layer.nodes if name in nodes and nodes[name].op_type in _MULTIPLIES]
    counts = {sum(_dequantised(name, makers) for name in node.input[:2]) for node in ours}
    if not counts or counts == {0}:
        return LEFT
    return BUILDER if counts == {2} else HALF_DONE


def _dequantised(name: str, makers: dict[str, onnx.NodeProto]) -> bool:
    """Whether the tensor comes out of a DequantizeLinear, looked at through what only moves or casts it."""
    while (node := makers.get(name)) is not None:
        if node.op_type == "DequantizeLinear":
            return True
        if node.op_type not in _PASSES:
            return False
        name = node.input[0]
    return False


def advice(told: list[dict[str, Any]]) -> str:
    """Which layers could multiply in INT8 and do not, by reason; "" where the recipe quantises nothing or all of them do."""
    by_reason: dict[str, list[str]] = {}
    for row in told:
        if row["why"] not in ("", FLOAT_MODEL):
            by_reason.setdefault(row["why"], []).append(next(iter(row["nodes"]), row["kind"]))
    return "; ".join(f"not in INT8: {_some(names)} ({reason})" for reason, names in by_reason.items())


def _some(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def keep(told: list[dict[str, Any]], folder: Path) -> None:
    """Puts the rows beside the model that they are of."""
    (folder / FILE).write_text(json.dumps(told), encoding="utf-8")


def kept(folder: Path) -> dict[str, Any]:
    """The manifest's facts: {"layers": rows}, or nothing where nothing was built."""
    path = folder / FILE
    return {"layers": json.loads(path.read_text(encoding="utf-8"))} if path.exists() else {}
