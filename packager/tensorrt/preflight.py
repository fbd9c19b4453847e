"""The preflight: NVIDIA's own parser and builder, on the processor, in a child process with limits.

TensorRT itself does not install without a GPU, so TensorRT-RTX stands in: another compiler of the same parser, for SM86
since it has no SM87. Its verdicts are advice about Jetson, never a validation there, and its engine is thrown away.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.finding import INFO, WARNING, Finding
from packager.onnx_model import all_nodes, load_model
from packager.tensorrt import explained, layers, operators
from packager.tensorrt.graph import node_label
from packager.tensorrt.rules import NOT_CHECKED, OK, REJECTED, UNVERIFIED, NodeVerdict

if TYPE_CHECKING:
    from packager.shapes import Range

MODULE = "tensorrt_rtx"
CAPABILITY = "SM86"
SECONDS = 600.0
MEMORY_MB = 12_000
_NO_KERNEL = "has no runners that implement it"
LABEL = "not run on hardware"


@dataclasses.dataclass(frozen=True)
class Preflight:
    """`verdict` is ok, rejected, unverified or not-checked; `nodes` are those it turned on; `table` is what was
    built, `rows` the same with reasons (`explained.rows`).
    """

    verdict: str
    tool: str
    reason: str = ""
    nodes: tuple[NodeVerdict, ...] = ()
    table: layers.Table | None = None
    rows: tuple[dict[str, Any], ...] = ()
    seconds: float = 0.0

    def findings(self) -> list[Finding]:
        """What the manifest says of it."""
        where = f"{self.tool} for {CAPABILITY}, {LABEL}" if self.tool else LABEL
        if self.verdict == OK and self.table is not None:
            return [
                Finding("tensorrt-preflight", INFO, f"ok: parsed and built by {where}", ""),
                Finding("tensorrt-layers", INFO, self.table.summary(), explained.advice([*self.rows])),
            ]
        if self.verdict == NOT_CHECKED:
            advice = "pip install 'edgepack[tensorrt]'"
            return [Finding("tensorrt-preflight", WARNING, f"not-checked: {self.reason}", advice)]
        advice = "; ".join(sorted({node.fix for node in self.nodes if node.fix})) or "try it on the device"
        return [Finding("tensorrt-preflight", WARNING, f"{self.verdict}: {self.reason} ({where})", advice)]


def available() -> bool:
    """Whether the `tensorrt` extra is installed."""
    return importlib.util.find_spec(MODULE) is not None


def preflight(
    model: Path,
    ranges: Mapping[str, Range],
    expected: Sequence[NodeVerdict] = (),
    *,
    seconds: float = SECONDS,
    memory_mb: int = MEMORY_MB,
) -> Preflight:
    """Parses and builds `model`. `expected` are the static rules' doubts: nodes on which the stand-in's "no" is no proof."""
    if not available():
        return Preflight(NOT_CHECKED, "", "the extra `tensorrt` is not installed")
    profile = {name: [list(r.least), list(r.usual), list(r.most)] for name, r in ranges.items()}
    task = {
        "model": str(model),
        "profiles": [profile] if profile else [],
        "capability": CAPABILITY,
        "memory_mb": memory_mb,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "packager.tensorrt"],
            input=json.dumps(task),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Preflight(UNVERIFIED, MODULE, f"the builder took longer than {seconds:.0f} s")
    if done.returncode or not done.stdout:
        tail = done.stderr.strip()[-300:]
        reason = f"the builder died (status {done.returncode}) under {memory_mb} MB of memory: {tail}"
        return Preflight(UNVERIFIED, MODULE, reason)
    return _judge(json.loads(done.stdout), model, expected)


def _judge(answer: dict[str, Any], model: Path, expected: Sequence[NodeVerdict]) -> Preflight:
    tool = f"TensorRT-RTX {answer['version']}"
    if answer["stage"] == "built":
        doubts = tuple(node for node in expected if node.verdict == UNVERIFIED)
        table = layers.read(answer["lines"], answer["engine_bytes"])
        verdict = UNVERIFIED if doubts else OK
        rows = tuple(explained.rows(table, model))
        return Preflight(verdict, tool, "; ".join(map(str, doubts)), doubts, table, rows, answer["seconds"])
    faults = [fault for fault in answer["faults"] if fault]
    nodes = tuple(_node(fault, answer["errors"], model) for fault in faults)
    if answer["stage"] == "build" and any(_NO_KERNEL in error for error in answer["errors"]):
        nodes = _without_kernel(model) or nodes
    lies = [node for node in nodes if node.operator in operators.PROXY_LACKS | operators.PLUGINS]
    reason = "; ".join(str(node) for node in nodes)[:1000]
    if lies and len(lies) == len(nodes):
        return Preflight(UNVERIFIED, tool, f"{reason}: TensorRT has it, its stand-in on the host does not", nodes)
    return Preflight(REJECTED, tool, reason, nodes)


def _without_kernel(model: Path) -> tuple[NodeVerdict, ...]:
    """The nodes that the stand-in parses and has no kernel for, while TensorRT has one: the builder names none of them."""
    reason = "parsed, but the stand-in has no kernel for it"
    return tuple(
        NodeVerdict(UNVERIFIED, node_label(node), node.op_type, reason, "try it on the device")
        for node in all_nodes(load_model(model, weights=False).graph)
        if node.op_type in operators.PROXY_LACKS
    )


def _node(fault: dict[str, str], errors: Sequence[str], model: Path) -> NodeVerdict:
    """The parser says only "false" for an operator that it lacks: the node and the operator say more."""
    operator, name = fault.get("node_operator", ""), fault.get("node_name", "")
    text = fault.get("desc", "")
    if text in ("", "false") or "UNSUPPORTED_NODE" in text:
        text = f"the parser does not take {operator}" if operator else "the parser does not take it"
    if not operator:
        # The builder names no node: its own error does.
        text = "; ".join(error.split("Error Code")[-1].strip(" :0123456789") for error in errors)[:600] or text
    return NodeVerdict(REJECTED, name or model.name, operator or "network", text, operators.ADVICE.get(operator, ""))
