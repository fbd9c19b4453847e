"""Two forms of one module, compared by what they compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent.contract.errors import ConvertError
from packager import torch_models


def outputs_of(module: Any, feed: Sequence[Any]) -> list[Any]:
    """The module's output tensors for positional inputs."""
    torch = torch_models.need_torch()
    with torch.no_grad():
        return flatten(module(*[one.clone() for one in feed]))


def worst_cosine(expected: Sequence[Sequence[Any]], found: Sequence[Sequence[Any]]) -> float:
    """The lowest cosine between two lists of outputs, over all samples and float outputs; 1.0 for equal tensors, -1.0
    where shapes or numbers of outputs differ or integers disagree.
    """
    torch = torch_models.need_torch()
    worst = 1.0
    for want_row, got_row in zip(expected, found, strict=True):
        if len(want_row) != len(got_row):
            return -1.0
        for want, got in zip(want_row, got_row, strict=True):
            if want.shape != got.shape:
                return -1.0
            if torch.equal(want, got):
                continue
            if not want.is_floating_point():
                return -1.0
            left, right = want.double().flatten(), got.double().flatten()
            scale = left.norm() * right.norm()
            worst = min(worst, float(left @ right / scale) if scale > 0 else -1.0)
    return worst


def flatten(result: Any) -> list[Any]:
    """The tensors of a module's result, in order, untouched: fit to be traced. Raises ConvertError for what holds none."""
    torch = torch_models.need_torch()
    if isinstance(result, torch.Tensor):
        return [result]
    if isinstance(result, Mapping):
        result = list(result.values())
    if isinstance(result, (tuple, list)):
        return [tensor for item in result for tensor in flatten(item)]
    if result is None:
        return []
    raise ConvertError(f"the module returns {type(result).__name__}", expected="tensors", code="output-type")
