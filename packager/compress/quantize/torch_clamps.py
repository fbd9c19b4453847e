"""The ReLU6 trap: PyTorch's qnnpack kernel for an INT8 clamp (ReLU6, hardtanh, clamp) writes a channels_last tensor's
bytes into a contiguous one, and so scrambles it; its convolutions always give channels_last.

Two exact ways round it. Where the clamp [0, c] follows a convolution or a linear layer, the layer becomes layer + ReLU with
an output range that ends at c: the quantised values saturate just there, and the clamp is gone. Elsewhere the tensor is made
contiguous before the clamp: the kernel is right on those.
"""

from __future__ import annotations

import math
from typing import Any

from packager import torch_models

_LAYERS = ("Conv1d", "Conv2d", "Conv3d", "Linear")
_NORMS = ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d")


def absorb_clamps(graph: Any, *, keep: bool = False) -> dict[str, float]:
    """Replaces clamps from 0 that follow a layer by ReLU, in place. The modules concerned (layer, norm, ReLU) with their
    caps: they need a capped observer. `keep`: the clamp stays behind the ReLU, for engines whose ranges end below the
    integers' own (`saturates`): the cap then only spends all levels on what the clamp lets through.
    """
    torch = torch_models.need_torch()
    caps: dict[str, float] = {}
    modules = dict(graph.named_modules())
    for node in list(graph.graph.nodes):
        low, high = clamp_bounds(node, modules)
        before = _layer_chain(node, modules) if low == 0 and math.isfinite(high) else []
        if not before:
            continue
        name = f"absorbed_relu_{sum(one.startswith('absorbed_relu_') for one in caps)}"
        graph.add_submodule(name, torch.nn.ReLU().eval())
        source = node.args[0]
        with graph.graph.inserting_before(node):
            relu = graph.graph.call_module(name, (source,))
        if keep:
            node.replace_input_with(source, relu)
        else:
            node.replace_all_uses_with(relu)
            graph.graph.erase_node(node)
        for target in (*before, name):
            caps[target] = high
    graph.recompile()
    return caps


def cap_outputs_only(prepared: Any, caps: dict[str, float], plain: Any) -> None:
    """Gives the observers before capped layers their plain form, in place; `plain()` makes one. Where nothing observes a
    layer's input yet (the network's own input, what a pad gives), the layer's setting does, and a cap would cut it off.
    """
    modules = dict(prepared.named_modules())
    for node in prepared.graph.nodes:
        one = modules.get(str(node.target)) if node.op == "call_module" else None
        watcher = getattr(one, "activation_post_process", one)
        if type(watcher).__name__ == "CappedObserver" and str(getattr(node.args[0], "target", "")) not in caps:
            prepared.add_submodule(node.target, plain())


def saturates(engine: str) -> bool:
    """Whether the integers end where a capped range ends. The x86 engine's ranges take 7 of 8 bits (reduce_range): what is
    above the cap still has a number.
    """
    return engine != "x86"


def guard_clamps(graph: Any) -> int:
    """Makes the input of every clamp that is left contiguous, in place; how many there were."""
    modules = dict(graph.named_modules())
    count = 0
    for node in list(graph.graph.nodes):
        if math.isinf(clamp_bounds(node, modules)[1]) and math.isinf(clamp_bounds(node, modules)[0]):
            continue
        source = node.args[0]
        with graph.graph.inserting_before(node):
            straight = graph.graph.call_method("contiguous", (source,))
        node.replace_input_with(source, straight)
        count += 1
    graph.recompile()
    return count


def clamp_bounds(node: Any, modules: dict[str, Any]) -> tuple[float, float]:
    """The lower and upper bound of a clamp-like node; both infinite for any other node."""
    torch = torch_models.need_torch()
    functional = torch.nn.functional
    none = (-math.inf, math.inf)
    if node.op == "call_module":
        layer: Any = modules.get(str(node.target))
        kind = type(layer).__name__
        if kind == "ReLU6":
            return (0.0, 6.0)
        return (float(layer.min_val), float(layer.max_val)) if kind == "Hardtanh" else none
    if node.target in (functional.relu6, torch.ops.quantized.relu6):
        return (0.0, 6.0)
    if node.target in (functional.hardtanh, torch.ops.aten.hardtanh):
        return _numbers(node, "min_val", "max_val", (-1.0, 1.0))
    if node.target in (torch.clamp, torch.clip) or (
        node.op == "call_method" and node.target in ("clamp", "clip", "clamp_")
    ):
        return _numbers(node, "min", "max", none)
    return none


def _numbers(node: Any, low: str, high: str, default: tuple[float, float]) -> tuple[float, float]:
    given = (*node.args[1:3], None, None)
    values = [node.kwargs.get(low, given[0]), node.kwargs.get(high, given[1])]
    found = [float(value) if isinstance(value, (int, float)) else default[index] for index, value in enumerate(values)]
    return found[0], found[1]


def _layer_chain(node: Any, modules: dict[str, Any]) -> list[str]:
    """The names of the layer (and its batch norm) that feed this node alone; empty where there are none."""
    names: list[str] = []
    source: Any = node.args[0] if node.args else None
    for kinds in (_NORMS, _LAYERS):
        kind = type(modules.get(str(getattr(source, "target", "")))).__name__
        if getattr(source, "op", "") != "call_module" or kind not in kinds:
            continue
        shared = [other.target for other in source.graph.nodes].count(source.target) > 1
        if len(source.users) != 1 or shared:
            return []
        names.append(str(source.target))
        if kinds is _LAYERS:
            return names
        source = source.args[0]
    return []
