"""The drop from original to bundle, paired: the same samples through both; and the budget it must keep."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from agent.contract.errors import UsageError
from packager.accuracy import intervals

if TYPE_CHECKING:
    from packager.accuracy.metric import Metric, Score

POINT = 0.01
DEFAULT_POINTS = 1.0
DEFAULT_PERCENT = 5.0  # of an error such as mse: two and a half percent of its root
_NOTHING = 1e-9  # points
_HALF = 0.5  # of the budget is safe: samples that a search never saw lose a little more


@dataclasses.dataclass(frozen=True)
class Drop:
    """`points` lost (one point is 0.01 of the score) and `relative`, in percent of the original's score (None at 0).

    `interval` is of the points, by the samples' own differences, or by draws of the same samples for both where the metric
    is no mean over them (F1); None where a draw of samples has no score (a ranking). `error` is the points' standard error.
    """

    points: float
    relative: float | None
    interval: tuple[float, float] | None
    error: float | None = None
    percent_per_point: float | None = None  # of the original's score; None at 0

    def __str__(self) -> str:
        """In words."""
        return self.told()

    def told(self, *, percent: bool = False) -> str:
        """In words: the points, or the percent of the original's score."""
        ratio, unit = (self.percent_per_point or 0.0, "%") if percent else (1.0, "points")
        text = f"{_signed(self.points * ratio)} {unit}" if self.points else f"0 {unit}"
        if self.interval is not None:
            text += f" ({_signed(self.interval[0] * ratio)} to {_signed(self.interval[1] * ratio)})"
        return text


def _signed(value: float) -> str:
    """Two digits after the point; of what those would show as nothing the first that counts, down to a float's own noise."""
    shown = f"{value:+.2f}"
    return shown if float(shown) or abs(value) < _NOTHING else f"{value:+.1g}"


def paired_drop(original: Score, after: Score) -> Drop:
    """How much `after` lost against `original`, both of the same samples."""
    lost = original.score - after.score
    percent = 100 * POINT / abs(original.score) if original.score else None
    relative = None if percent is None else percent * lost / POINT
    interval, error = None, None
    if original.rows is not None and after.rows is not None:
        low, high = intervals.of_difference(original.rows, after.rows)
        interval = (low / POINT, high / POINT)
        error = float((original.rows - after.rows).std()) / math.sqrt(after.n) / POINT
    elif original.draws is not None and after.draws is not None and original.n == after.n:
        (low, high), deviation = intervals.of_draws(original.draws, after.draws, lost)
        interval, error = (low / POINT, high / POINT), deviation / POINT
    return Drop(lost / POINT, relative, interval, error, percent)


@dataclasses.dataclass(frozen=True)
class Budget:
    """The most that may be lost: `points`, or `relative` percent of the original's score. `default`: nobody asked for it."""

    points: float | None = DEFAULT_POINTS
    relative: float | None = None
    default: bool = False

    def spent(self, drop: Drop) -> float:
        """The share of the budget that the drop takes: at most 1 is within. Raises UsageError for percent of nothing."""
        if self.relative is None:
            limit, lost = self.points or 0.0, drop.points
        elif drop.relative is None:
            raise UsageError(
                "the original scores 0: no percentage can be lost of that",
                fix="give --max-drop POINTS",
                code="relative-to-zero",
            )
        else:
            limit, lost = self.relative, drop.relative
        if lost <= limit:
            return max(0.0, lost / limit) if limit > 0 else 0.0
        return lost / limit if limit > 0 else float("inf")

    def risk(self, drop: Drop) -> float:
        """The share of the budget that the drop takes with one standard error on top; twice the drop where none is known."""
        if drop.error is None:
            return self.spent(drop) / _HALF
        percent = drop.percent_per_point
        more = None if drop.relative is None or percent is None else drop.relative + drop.error * percent
        return self.spent(dataclasses.replace(drop, points=drop.points + drop.error, relative=more))

    def met(self, drop: Drop) -> bool:
        """Whether the drop is within the budget."""
        return self.spent(drop) <= 1

    def __str__(self) -> str:
        """In words; a default that depends on the metric says that it is one."""
        if self.relative is None:
            return f"{self.points:g} point{'' if self.points == 1 else 's'}"
        return f"{self.relative:g} % of the score" + (" (the default)" if self.default else "")

    def told(self, drop: Drop) -> str:
        """The drop in words, in the budget's own unit."""
        return drop.told(percent=self.relative is not None)


def make_budget(points: float | None, relative: float | None) -> Budget:
    """From --max-drop and --max-drop-relative; one point by default. Raises UsageError for both, or for negative ones."""
    if points is not None and relative is not None:
        raise UsageError("--max-drop and --max-drop-relative exclude each other", fix="give one", code="two-budgets")
    value: Any = points if relative is None else relative
    if value is not None and not 0 <= value < float("inf"):
        raise UsageError(f"a budget of {value:g}", expected="0 or more", code="budget")
    if relative is not None:
        return Budget(None, relative)
    return Budget(DEFAULT_POINTS, default=True) if points is None else Budget(points)


def budget_for(metric: Metric, points: float | None, relative: float | None, *, labelled: bool) -> Budget:
    """As `make_budget`; of an error (mse) in percent, since a point is 0.01 of a score between 0 and 1.

    Raises UsageError for points of an error, and for percent of an error that is 0: the original's against itself.
    """
    budget = make_budget(points, relative)
    if metric.bounded:
        return budget
    if points is not None:
        raise UsageError(
            f"--max-drop counts points, 0.01 of a score between 0 and 1, and {metric.name} is no such score",
            expected=f"a budget in percent of the original's {metric.name}",
            fix="--max-drop-relative PERCENT (max_drop_relative in a recipe)",
            code="points-of-an-error",
        )
    if not labelled:
        raise UsageError(
            f"{metric.name} without labels compares with the original's own outputs, which are off by 0 from themselves: "
            "there is no percentage of that to lose",
            expected="`labels` in the evaluation set, in the shape of the output",
            fix="add `labels`, or take a score between 0 and 1 of the same comparison: --metric cosine, or agreement",
            code="relative-to-zero",
        )
    return Budget(None, DEFAULT_PERCENT, default=True) if budget.default else budget


def settled(budget: Budget, metric: Metric, original: Score) -> Budget:
    """The budget once the original's score is known. A default in points is one in percent where the user's own metric is
    no score between 0 and 1 (a negated error, a perplexity).

    Raises UsageError for percent of a score of 0, before any candidate is made.
    """
    if budget.default and budget.relative is None and metric.whole is not None and not 0 <= original.score <= 1:
        budget = Budget(None, DEFAULT_PERCENT, default=True)
    budget.spent(paired_drop(original, original))
    return budget
