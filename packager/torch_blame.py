"""Which layer of a module an operator comes from that a converter does not know, and what could stand in its place."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

_OPERATOR = re.compile(r"aten[.:]+_?(\w+)")
_PLAIN = re.compile(r"^(?:linalg|fft)?_+|_+$")
# By a part of the operator's name, without underscores in front.
_INSTEAD = {
    "col2im": "where window and stride are equal, a reshape and a permute; else leave it to the program that calls the model",
    "det": "leave it to the program that calls the model",
    "svd": "leave it to the program that calls the model",
    "inverse": "leave it to the program that calls the model",
    "eig": "leave it to the program that calls the model",
    "fft": "a matrix product with constant cosines and sines",
    "nonzero": "a mask of fixed shape: torch.where(condition, a, b)",
    "unique": "a result of fixed shape, sorted by the program that calls the model",
    "index_put": "torch.where, or concatenation",
    "scatter": "torch.where, or concatenation",
    "grid_sample": "interpolate, or sample outside of the model",
    "multinomial": "draw outside of the model",
    "rand": "make it an input of the model",
}


def operator_in(told: str) -> str:
    """linalg_det of "Lowering not found: aten._linalg_det.default"; empty where no operator is named."""
    found = _OPERATOR.search(told)
    return found[1] if found else ""


def instead_of(operator: str) -> str:
    """What could replace it; a general word where nothing better is known."""
    near = next((words for part, words in _INSTEAD.items() if part in operator), "")
    return near or "write it with arithmetic operators, or leave it to the program that calls the model"


def layers_of(operator: str, module: Any, examples: Sequence[Any]) -> list[str]:
    """The layers whose forward() uses the operator, by their names in the module; empty where the trace does not tell."""
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exported = torch.export.export(module, tuple(examples))
            # The user's own operators first; a converter may name what one of them decomposes into.
            return _users(exported.graph, operator) or _users(exported.run_decompositions().graph, operator)
    except Exception:  # noqa: BLE001 - it explains another error: what it cannot tell is left out
        return []


def _users(graph: Any, operator: str) -> list[str]:
    wanted = _plain(operator)
    found: list[str] = []
    for node in graph.nodes:
        used = operator_in(str(node.target).replace("torch.ops.", ""))
        if node.op == "call_function" and used and _plain(used) == wanted:
            stack = node.meta.get("nn_module_stack") or {}
            names = [place for place, _ in stack.values()]
            layer = names[-1] if names and names[-1] else "forward()"
            if layer not in found:
                found.append(layer)
    return found


def _plain(operator: str) -> str:
    """linalg_det, _linalg_det and det are the same to someone who looks for the layer."""
    return _PLAIN.sub("", operator)
