"""Joins of values of very different size, as detectors join boxes and scores: their one scale of 8 bits loses the small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent.contract.finding import INFO, Finding
from packager import torch_models
from packager.compress.quantize.clipping import lost

_SAMPLES = 8


def join_kinds() -> tuple[Any, ...]:
    """What joins tensors in a graph: PyTorch's functions, and the operator of an exported program."""
    torch = torch_models.need_torch()
    return (torch.cat, torch.concat, torch.concatenate, torch.ops.aten.cat.default)


def mixed_joins(graph: Any, feeds: Sequence[Sequence[Any]]) -> dict[str, tuple[float, float]]:
    """The `cat` nodes of a float graph (torch.fx) that should stay in float, by name: how far the values of the whole spread,
    and those of the part that spreads least. Quantisers of PyTorch give all parts and the whole one scale.
    """
    torch = torch_models.need_torch()
    kinds = join_kinds()
    ends: dict[str, list[tuple[float, float]]] = {}

    base: Any = torch.fx.Interpreter

    class Watching(base):  # type: ignore[misc] # the base is known at run time only
        def run_node(self, n: Any) -> Any:
            if n.op == "call_function" and n.target in kinds:
                parts = self.map_nodes_to_values(n.args[0] if n.args else n.kwargs["tensors"], n)
                seen = [
                    (float(one.min()), float(one.max())) for one in parts if one.is_floating_point() and one.numel()
                ]
                before = ends.get(n.name, seen)
                ends[n.name] = [(min(low, a), max(high, b)) for (low, high), (a, b) in zip(before, seen, strict=True)]
            return super().run_node(n)

    watching = Watching(graph)
    with torch.no_grad():
        for feed in feeds[:_SAMPLES]:
            watching.run(*[one.clone() for one in feed])
    spreads = {name: _spreads(parts) for name, parts in ends.items()}
    return {name: (whole, least) for name, (whole, least) in spreads.items() if lost(least, whole)}


def _spreads(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Of the whole, and of the least part that is not constant."""
    whole = max((high for _, high in parts), default=0.0) - min((low for low, _ in parts), default=0.0)
    return whole, min((high - low for low, high in parts if high > low), default=whole)


def tell_joins(mixed: Mapping[str, tuple[float, float]]) -> list[Finding]:
    """What stays in float, and why."""
    return [
        Finding(
            "float-join",
            INFO,
            f"{name} stays in float: it joins values that spread over {large:.3g} with values that spread over {small:.3g},"
            " and one scale of 8 bits leaves nothing of the small ones",
            "",
        )
        for name, (large, small) in mixed.items()
    ]
