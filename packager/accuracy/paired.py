"""The drop from original to bundle, paired: the same samples through both; and the budget it must keep."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from agent.contract.errors import UsageError
from packager.accuracy import intervals

if TYPE_CHECKING:
    from packager.accuracy.metric import Score

POINT = 0.01
DEFAULT_POINTS = 1.0
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

    def __str__(self) -> str:
        """In words."""
        text = f"{self.points:+.2f} points" if self.points else "0 points"
        if self.interval is not None:
            text += f" ({self.interval[0]:+.2f} to {self.interval[1]:+.2f})"
        return text


def paired_drop(original: Score, after: Score) -> Drop:
    """How much `after` lost against `original`, both of the same samples."""
    lost = original.score - after.score
    relative = 100 * lost / abs(original.score) if original.score else None
    interval, error = None, None
    if original.rows is not None and after.rows is not None:
        low, high = intervals.of_difference(original.rows, after.rows)
        interval = (low / POINT, high / POINT)
        error = float((original.rows - after.rows).std()) / math.sqrt(after.n) / POINT
    elif original.draws is not None and after.draws is not None and original.n == after.n:
        (low, high), deviation = intervals.of_draws(original.draws, after.draws, lost)
        interval, error = (low / POINT, high / POINT), deviation / POINT
    return Drop(lost / POINT, relative, interval, error)


@dataclasses.dataclass(frozen=True)
class Budget:
    """The most that may be lost: `points`, or `relative` percent of the original's score."""

    points: float | None = DEFAULT_POINTS
    relative: float | None = None

    def spent(self, drop: Drop) -> float:
        """The share of the budget that the drop takes: at most 1 is within. Raises UsageError for percent of nothing."""
        if self.relative is None:
            limit, lost = self.points or 0.0, drop.points
        elif drop.relative is None:
            raise UsageError(
                "the original scores 0: no percentage can be lost of that",
                fix="give --max-drop POINTS, or labels to score against",
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
        more = None
        if drop.relative is not None:
            # The score that both are fractions of; a drop of nothing leaves no ratio, and then points are percent enough.
            ratio = drop.relative / drop.points if drop.points else 1.0
            more = drop.relative + drop.error * abs(ratio)
        return self.spent(dataclasses.replace(drop, points=drop.points + drop.error, relative=more))

    def met(self, drop: Drop) -> bool:
        """Whether the drop is within the budget."""
        return self.spent(drop) <= 1

    def __str__(self) -> str:
        """In words."""
        return f"{self.relative:g} % of the score" if self.relative is not None else f"{self.points:g} points"


def make_budget(points: float | None, relative: float | None) -> Budget:
    """From --max-drop and --max-drop-relative; one point by default. Raises UsageError for both, or for negative ones."""
    if points is not None and relative is not None:
        raise UsageError("--max-drop and --max-drop-relative exclude each other", fix="give one", code="two-budgets")
    value: Any = points if relative is None else relative
    if value is not None and not 0 <= value < float("inf"):
        raise UsageError(f"a budget of {value:g}", expected="0 or more", code="budget")
    if relative is not None:
        return Budget(None, relative)
    return Budget(DEFAULT_POINTS if points is None else points)
