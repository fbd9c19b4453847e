"""Scores a candidate on a quarter of the samples first, and on the rest only where that leaves it a chance."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from packager.accuracy.paired import Budget, paired_drop

if TYPE_CHECKING:
    import numpy as np

    from packager.accuracy.dataset import EvalSet
    from packager.accuracy.metric import Metric, Score
    from packager.accuracy.paired import Drop

    Array = np.ndarray[Any, Any]

_PART = 4
_LEAST = 30  # samples: of fewer no interval excludes anything worth excluding


class Screen:
    """`original` is the original's score on `data`, and its outputs. Metrics of all samples at once are not screened."""

    def __init__(self, data: EvalSet, metric: Metric, original: tuple[Score, dict[str, Array]], budget: Budget) -> None:
        import numpy as np

        self._data, self._metric, self._budget = data, metric, budget
        self.original, self._reference = original
        count = len(data)
        whole = self.original.rows is None or count < _PART * _LEAST
        whole = whole or any(len(values) != count for values in self._reference.values())
        order = np.random.default_rng(0).permutation(count)  # sets are often sorted by their labels
        self._first = None if whole else np.sort(order[: count // _PART])
        self._rest = np.sort(order[count // _PART :])
        self._part: Score | None = None

    def score(self, run: Callable[[EvalSet], dict[str, Array]]) -> Score:
        """The candidate's score; on a quarter of the samples where already that excludes the budget, by the paired 95 %
        interval.
        """
        data, first = self._data, self._first
        if first is None:
            return self._metric.measure(run(data), data.labels, self._reference)
        part = data.part(first)
        begun = run(part)
        score = self._metric.measure(begun, part.labels, self._part_reference(first))
        if self._hopeless(self.drop(score)):
            return score
        outputs = self._joined(begun, run(data.part(self._rest)))
        return self._metric.measure(outputs, data.labels, self._reference)

    def drop(self, score: Score) -> Drop:
        """What a candidate lost, against the original on the same samples."""
        return paired_drop(self._original_of(score.n), score)

    def _original_of(self, count: int) -> Score:
        if self._first is None or count == len(self._data):
            return self.original
        if self._part is None:
            reference = self._part_reference(self._first)
            self._part = self._metric.measure(reference, self._data.part(self._first).labels, reference)
        return self._part

    def _part_reference(self, picks: Array) -> dict[str, Array]:
        return {name: values[picks] for name, values in self._reference.items()}

    def _hopeless(self, drop: Drop) -> bool:
        if drop.interval is None or (drop.relative is None and self._budget.relative is not None):
            return False
        low = drop.interval[0]
        relative = None if drop.percent_per_point is None else drop.percent_per_point * low
        return self._budget.spent(dataclasses.replace(drop, points=low, relative=relative)) > 1

    def _joined(self, begun: dict[str, Array], others: dict[str, Array]) -> dict[str, Array]:
        import numpy as np

        found = {}
        for name, values in begun.items():
            found[name] = np.empty((len(self._data), *values.shape[1:]), values.dtype)
            found[name][self._first], found[name][self._rest] = values, others[name]
        return found
