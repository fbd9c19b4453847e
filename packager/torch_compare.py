"""Two forms of one module, compared by what they compute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from packager import torch_models


def outputs_of(module: Any, feed: Sequence[Any]) -> list[Any]:
    """The module's output tensors for positional inputs."""
    torch = torch_models.need_torch()
    with torch.no_grad():
        return torch_models.flatten_outputs(module(*[one.clone() for one in feed]))


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
