"""A Q/DQ graph with some layers back in float: by rewiring, in milliseconds, where quantising anew takes seconds."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from packager.onnx_model import all_nodes

COMPUTE = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# Exact on quantised values.
PASS_THROUGH = ("MaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze")
# What the ranges of the output's integers do as well: taken into the layer before.
ACTIVATIONS = ("Relu", "Clip")
_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"


def leave_in_float(model: Any, floating: Any, names: Collection[str]) -> None:
    """Changes `model`, whose layers are all quantised, so that the layers in `names` compute in float.

    `floating` is the graph before it was quantised: weights and activations come back from there. A tensor is read
    through its Q/DQ pair only by layers in INT8 and by what reads the output of one. An addition beside them takes the
    float numbers then: onnxruntime's quantiser rounds a tensor for all its readers, along residual paths again and again.
    """
    graph = model.graph
    made_by = {name: node for node in graph.node for name in node.output}
    inside: set[str] = set()  # nodes that compute in integers, in the order of the graph
    for node in graph.node:
        if node.op_type in (_QUANTIZE, _DEQUANTIZE):
            continue
        wanted = node.op_type in COMPUTE and node.name not in names
        for place, name in enumerate(node.input):
            source = _quantised_from(name, made_by)
            if source is None:
                if wanted and _is_constant(name, made_by):
                    inside.add(node.name)
                continue
            fed = _maker_name(source, made_by) in inside
            if fed or wanted:
                if wanted or node.op_type in PASS_THROUGH:
                    inside.add(node.name)
            else:
                node.input[place] = source
    for value in graph.output:
        source = _quantised_from(value.name, made_by)
        if source is not None and _maker_name(source, made_by) not in inside:
            made_by[value.name].output[0] = f"{value.name}_unread"
            _rename(graph, source, value.name)
    whole = _Floating(graph, floating.graph)
    for node in list(graph.node):
        if node.op_type in COMPUTE and node.name in names:
            _give_back(graph, node, whole, made_by)
    _sweep(graph)


def _rename(graph: Any, old: str, new: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == old:
                    names[place] = new


def _maker_name(name: str, made_by: dict[str, Any]) -> str:
    maker = made_by.get(name)
    return "" if maker is None else str(maker.name)


def _is_constant(name: str, made_by: dict[str, Any]) -> bool:
    """Whether these are integer weights behind a DequantizeLinear."""
    node = made_by.get(name)
    return node is not None and node.op_type == _DEQUANTIZE and node.input[0] not in made_by


def _quantised_from(name: str, made_by: dict[str, Any]) -> str | None:
    """The float tensor of which this is the rounded copy; None for any other tensor."""
    node = made_by.get(name)
    if node is None or node.op_type != _DEQUANTIZE:
        return None
    before = made_by.get(node.input[0])
    return str(before.input[0]) if before is not None and before.op_type == _QUANTIZE else None


class _Floating:
    """The graph before it was quantised, by names; of the graph that takes its constants back, those that are there."""

    def __init__(self, graph: Any, floating: Any) -> None:
        self.nodes = {one.name: one for one in floating.node}
        self.constants = {one.name: one for one in floating.initializer}
        self.activations = {name: one for one in floating.node if one.op_type in ACTIVATIONS for name in one.input[:1]}
        self._graph, self._there = graph, {one.name for one in graph.initializer}

    def constant(self, name: str, wanted: str) -> str:
        """The name under which the constant now stands in the graph."""
        if wanted not in self._there:
            tensor = self.constants.get(name)
            if tensor is None:
                return name  # made by a node, which is there still
            self._graph.initializer.add().CopyFrom(tensor)
            self._graph.initializer[-1].name = wanted
            self._there.add(wanted)
        return wanted


def _give_back(graph: Any, node: Any, whole: _Floating, made_by: dict[str, Any]) -> None:
    """Float weights for a node, and the activation that its output's range had replaced."""
    first = whole.nodes[node.name]
    del node.input[len(first.input) :]  # a bias that only corrected the rounding
    for place, name in enumerate(first.input):
        if place < len(node.input) and _is_constant(node.input[place], made_by):
            free = f"{name}_float" if name in made_by else name  # the rounded bias has taken the name
            node.input[place] = whole.constant(name, free)
    out = first.output[0]
    after = whole.activations.get(out)
    if after is None or node.output[0] == out or any(one.name == after.name for one in graph.node):
        return
    place = next(index for index, one in enumerate(graph.node) if one.name == node.name)
    activation = type(after)()
    activation.CopyFrom(after)
    for index, name in enumerate(after.input[1:], 1):
        if name:
            activation.input[index] = whole.constant(name, name)
    activation.output[0] = node.output[0]
    node.output[0] = out
    graph.node.insert(place + 1, activation)


def _sweep(graph: Any) -> None:
    """Takes out what nobody reads any more."""
    while True:
        uses = {name for node in all_nodes(graph) for name in node.input if name}
        uses |= {value.name for value in graph.output}
        kept = [node for node in graph.node if uses.intersection(node.output)]
        if len(kept) == len(graph.node):
            break
        copies = [type(node).FromString(node.SerializeToString()) for node in kept]
        del graph.node[:]
        graph.node.extend(copies)
    for place in reversed(range(len(graph.initializer))):
        if graph.initializer[place].name not in uses:
            del graph.initializer[place]
