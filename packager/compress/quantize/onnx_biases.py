"""Graphs that onnxruntime's static quantiser breaks, repaired before it sees them; nothing that is computed changes."""

from __future__ import annotations

from collections import Counter
from typing import Any

_BIASED = ("Conv", "ConvTranspose", "Gemm")
_BIAS = 2  # its place among the inputs


def repair_graph(model: Any) -> None:
    """Biases get a vector of their own each, nodes a name.

    The quantiser copies a bias that several nodes share under a name that another tensor may have (basic-pitch), and
    takes axis 0 for the channels of a bias of the shape [1, n] (Magika).
    """
    nodes = [node for node in model.graph.node if node.op_type in _BIASED and len(node.input) > _BIAS]
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    uses = Counter(name for node in model.graph.node for name in node.input)
    taken = {name for node in model.graph.node for name in (*node.input, *node.output)} | set(weights)
    for index, node in enumerate(nodes):
        bias = weights.get(node.input[_BIAS])
        if bias is None:
            continue
        row = node.op_type == "Gemm" and list(bias.dims[:-1]) == [1]
        if uses[bias.name] > 1:
            uses[bias.name] -= 1
            copy = model.graph.initializer.add()
            copy.CopyFrom(bias)
            copy.name = _free(f"{bias.name}_of_{index}", taken)
            node.input[_BIAS] = copy.name
            bias = copy
        if row:
            size = bias.dims[-1]
            del bias.dims[:]
            bias.dims.append(size)
    named = {node.name for node in model.graph.node}
    for index, node in enumerate(model.graph.node):
        if not node.name:
            node.name = _free(f"{node.op_type}_{index}", named)


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name
