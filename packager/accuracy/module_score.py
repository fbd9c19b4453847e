"""A module scored on an evaluation set while it is pruned, by the same metrics as everything else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from packager import torch_models
from packager.accuracy.dataset import EvalSet, load_eval
from packager.accuracy.metric import load_metric

if TYPE_CHECKING:
    from agent.contract.manifest import TensorSpec

_BATCH = 64


def module_scorer(
    data: str, metric: str, inputs: Sequence[TensorSpec], outputs: Sequence[str]
) -> Callable[[Any], float]:
    """A function from module to score; `agreement` is with the first module that it is given. Raises UsageError."""
    samples = load_eval(data, inputs)
    chosen = load_metric(metric, samples)
    first: list[dict[str, Any]] = []

    def score(module: Any) -> float:
        found = run(module, samples, [spec.name for spec in inputs], outputs)
        first.extend([] if first else [found])
        return chosen.measure(found, samples.labels, first[0]).score

    return score


def run(module: Any, samples: EvalSet, inputs: Sequence[str], outputs: Sequence[str]) -> dict[str, Any]:
    """The module's outputs by name, stacked over all samples."""
    import numpy as np

    starts = range(0, len(samples), _BATCH)
    parts = [{name: samples.arrays[name][start : start + _BATCH] for name in inputs} for start in starts]
    rows = list(torch_models.run_module(module.eval(), parts, inputs, outputs))
    return {name: np.concatenate([row[name] for row in rows]) for name in outputs}
