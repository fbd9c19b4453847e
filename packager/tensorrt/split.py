"""NonMaxSuppression kept out of the engine: its output has a shape that depends on the data, which the agent's engine refuses
and which DLA and many TensorRT versions compute on the CPU anyway. The engine gives boxes and scores, exactly those that the
model gave to it; what comes after is a small ONNX file beside the model, for onnxruntime on the CPU.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError
from agent.contract.finding import WARNING, Finding
from packager.tensorrt.graph import node_label

if TYPE_CHECKING:
    import numpy as np

    from packager.bundle.golden import GoldenVectors

OPERATOR = "NonMaxSuppression"
AFTER = "model/after.onnx"
_HEAD, _TAIL = "before-nms.onnx", "after-nms.onnx"


@dataclasses.dataclass(frozen=True)
class Split:
    """`head` goes into the engine and gives `crossing`; `tail` takes them and gives the outputs that head does not."""

    head: Any
    tail: Any
    crossing: tuple[str, ...]
    nodes: tuple[str, ...]

    def finding(self) -> Finding:
        """What the user has to do now."""
        text = (
            f"{OPERATOR} ({', '.join(self.nodes)}) is not in the engine: it gives {', '.join(self.crossing)}, and {AFTER} in"
            f" the bundle makes {', '.join(one.name for one in self.tail.graph.output)} of them"
        )
        return Finding(
            "nms-outside", WARNING, text, "run that file with onnxruntime on the CPU, or your own suppression"
        )


def split(model: Any) -> Split | None:
    """The model before its first NonMaxSuppression and from there on; None for one that has none in its main graph.

    Raises ConvertError when nothing is left before it.
    """
    graph = model.graph
    late: set[str] = set()
    tail_nodes: list[Any] = []
    head_nodes: list[Any] = []
    for node in graph.node:
        after = node.op_type == OPERATOR or bool(late & set(_reads(node)))
        (tail_nodes if after else head_nodes).append(node)
        late |= set(node.output) if after else set()
    if not tail_nodes:
        return None
    made = {name for node in head_nodes for name in node.output}
    wanted = {name for node in tail_nodes for name in _reads(node)}
    crossing = [name for node in head_nodes for name in node.output if name in wanted]
    kept = [name for name in (value.name for value in graph.output) if name in made]
    if not crossing:
        raise ConvertError(
            f"nothing of the model is left before {OPERATOR}",
            where=node_label(tail_nodes[0]),
            fix="take --runtime onnxruntime, which runs on the same board",
            code="nothing-before-nms",
        )
    known = _known(model)
    given = [value for value in graph.input if value.name in wanted]
    head = _part(model, head_nodes, list(graph.input), [known[name] for name in dict.fromkeys([*crossing, *kept])])
    last = [value for value in graph.output if value.name not in made]
    tail = _part(model, tail_nodes, [*given, *(known[name] for name in crossing)], last)
    labels = tuple(node_label(node) for node in tail_nodes if node.op_type == OPERATOR)
    return Split(head, tail, tuple(crossing), labels)


def keep(parts: Split, folder: Path) -> None:
    """Writes both halves for the steps to come."""
    from packager.onnx_model import save_model

    save_model(parts.head, folder / _HEAD)
    save_model(parts.tail, folder / _TAIL)


def files(folder: Path) -> dict[str, bytes]:
    """The half that the bundle carries beside the model; nothing when the model was not split."""
    path = folder / _TAIL
    return {AFTER: path.read_bytes()} if path.exists() else {}


def fit(folder: Path, golden: GoldenVectors) -> GoldenVectors:
    """The golden vectors of the engine's half, proven: the other half makes the original's outputs of them.

    Raises ConvertError when it does not.
    """
    import numpy as np

    from packager.sources.onnx import run_onnx

    head, tail = folder / _HEAD, folder / _TAIL
    if not head.exists():
        return golden
    before, after = _names(head), _names(tail)
    feeds = list(golden.feeds())
    rows = list(run_onnx(head, feeds, before[1]))
    whole = [{**feed, **row} for feed, row in zip(feeds, rows, strict=True)]
    found = list(run_onnx(tail, [{name: one[name] for name in after[0]} for one in whole], after[1]))
    for name in after[1]:
        for index, row in enumerate(found):
            _prove(name, row[name], golden.outputs[name][index])
    stacked = {name: np.stack([row[name] for row in rows]) for name in before[1]}
    return dataclasses.replace(golden, outputs=stacked)


def _prove(name: str, found: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any]) -> None:
    import numpy as np

    if found.shape == wanted.shape and np.allclose(found, wanted, rtol=1e-4, atol=1e-4):
        return
    raise ConvertError(
        f"the model cut before {OPERATOR} gives another {name}",
        expected="the original's output from both halves together",
        fix="take --runtime onnxruntime, and report this model",
        code="split-differs",
    )


def _names(path: Path) -> tuple[list[str], list[str]]:
    from packager.onnx_model import load_model

    graph = load_model(path, weights=False).graph
    return [value.name for value in graph.input], [value.name for value in graph.output]


def _reads(node: Any) -> list[str]:
    """What a node takes, bodies of If and Loop included."""
    names = list(node.input)
    for attribute in node.attribute:
        for body in [attribute.g, *attribute.graphs] if attribute.type in (5, 10) else []:  # GRAPH, GRAPHS
            names += [name for inner in body.node for name in _reads(inner)]
    return [name for name in names if name]


def _known(model: Any) -> Mapping[str, Any]:
    """The types and shapes of all tensors, by name."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(model).graph
    return {value.name: value for value in (*graph.value_info, *graph.input, *graph.output)}


def _part(model: Any, nodes: list[Any], inputs: list[Any], outputs: list[Any]) -> Any:
    import onnx

    wanted = {name for node in nodes for name in _reads(node)}
    weights = [tensor for tensor in model.graph.initializer if tensor.name in wanted]
    graph = onnx.helper.make_graph(nodes, model.graph.name or "graph", inputs, outputs, weights)
    made = onnx.helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)
    made.functions.extend(model.functions)
    return made
