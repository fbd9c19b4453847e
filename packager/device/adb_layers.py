"""Where the time goes on a phone: the operators' times that TFLite's benchmark_model prints with --enable_op_profiling=true.

Source of the form: TensorFlow Lite's tools/benchmark/README.md, "Profiling model operators"; the columns have changed between
versions ([start] is gone), so they are found by their heads.
"""

from __future__ import annotations

import re

from agent.contract.protocol import Layer, Profile

FLAG = "--enable_op_profiling=true"
_SECTION = re.compile(r"=+ Run Order =+")
_NAME = re.compile(r"\[(?P<tensors>.*)\](?::\d+)?$")
_OVERHEAD = {"TRANSPOSE", "PAD", "PADV2", "QUANTIZE", "DEQUANTIZE", "CAST"}
_RUNS = re.compile(r"count=(\d+)\b.*\bavg=([0-9.e+]+)")


def parse_layers(talk: str) -> Profile:
    """The operators in the order they ran; `original` are the tensors that each makes, which bear the model's names. What the
    binary does not tell is said in `unread`, never guessed.
    """
    layers: list[Layer] = []
    for section in _SECTION.split(talk)[1:]:
        found = _layers(section)
        # The first section is of the preparation; the last that holds operators is of the inferences.
        layers = found or layers
    counts = _RUNS.findall(talk)
    if not layers or not counts:
        return Profile([], 0, 0.0, "this benchmark_model prints no operators' times (built without profiling?)")
    runs, average = counts[-1]
    return Profile(layers, int(runs), float(average) * 1e3)


def _layers(section: str) -> list[Layer]:
    found: list[Layer] = []
    heads: dict[str, int] = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.split("\t") if cell.strip() and cell.strip() != "INFO:"]
        if not heads:
            if "[node type]" in cells:
                heads = {cell: index for index, cell in enumerate(cells)}
        elif len(cells) < len(heads):
            break  # the table is over
        else:
            layer = _layer(cells, heads)
            if layer is not None:
                found.append(layer)
    return found


def _layer(cells: list[str], heads: dict[str, int]) -> Layer | None:
    try:
        kind, name = cells[heads["[node type]"]], cells[heads["[Name]"]]
        time_ns = float(cells[heads["[avg ms]"]]) * 1e6
    except (KeyError, IndexError, ValueError):
        return None
    if kind in ("ModifyGraphWithDelegate", "AllocateTensors"):
        return None
    match = _NAME.match(name)
    tensors = [part.strip() for part in match["tensors"].split(", ")] if match else []
    return Layer(
        name=name,
        kind=kind,
        provider="delegate" if "Delegate" in kind else "tflite",
        time_ns=time_ns,
        overhead=kind in _OVERHEAD,
        original=[one for one in tensors if one],
    )
