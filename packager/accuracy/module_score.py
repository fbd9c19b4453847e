"""A module scored on an evaluation set while it is pruned, by the same metrics as everything else."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from packager import torch_models
from packager.accuracy.dataset import EvalSet, load_eval
from packager.accuracy.metric import Metric, load_metric
from packager.accuracy.paired import Budget, budget_for, settled

if TYPE_CHECKING:
    from agent.contract.manifest import TensorSpec
    from packager.recipe_steps import Budget as StepBudget

_BATCH = 64


@dataclasses.dataclass
class ModuleScore:
    """Scores modules one after another; `agreement` is with the first that it is given, the original, whose score settles
    the budget.
    """

    samples: EvalSet
    metric: Metric
    budget: Budget
    inputs: Sequence[str]
    outputs: Sequence[str]
    _original: dict[str, Any] | None = None

    def __call__(self, module: Any) -> float:
        """The module's score. Raises UsageError where the first scores 0 and the budget is a percentage."""
        found = run(module, self.samples, self.inputs, self.outputs)
        reference = found if self._original is None else self._original
        score = self.metric.measure(found, self.samples.labels, reference)
        if self._original is None:
            self._original = found
            self.budget = settled(self.budget, self.metric, score)
        return score.score


def module_scorer(budget: StepBudget, inputs: Sequence[TensorSpec], outputs: Sequence[str]) -> ModuleScore:
    """What scores modules by a recipe step's budget. Raises UsageError."""
    samples = load_eval(budget.eval, inputs)
    chosen = load_metric(budget.metric, samples)
    allowed = budget_for(chosen, budget.max_drop, budget.max_drop_relative, labelled=samples.labels is not None)
    return ModuleScore(samples, chosen, allowed, [spec.name for spec in inputs], outputs)


def run(module: Any, samples: EvalSet, inputs: Sequence[str], outputs: Sequence[str]) -> dict[str, Any]:
    """The module's outputs by name, stacked over all samples."""
    import numpy as np

    starts = range(0, len(samples), _BATCH)
    parts = [{name: samples.arrays[name][start : start + _BATCH] for name in inputs} for start in starts]
    rows = list(torch_models.run_module(module.eval(), parts, inputs, outputs))
    return {name: np.concatenate([row[name] for row in rows]) for name in outputs}
