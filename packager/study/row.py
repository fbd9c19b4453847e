"""One technique's row: what it bought against the original, and the verdict in words."""

from __future__ import annotations

import dataclasses
from typing import Any

from packager.accuracy.paired import Budget, Drop

_LITTLE = 0.03  # of the size: less is no gain
_POINTS = 100
UNMEASURED = "worth measuring on the device"


@dataclasses.dataclass(frozen=True)
class Latency:
    """The median over all rounds, and the lowest and highest of the rounds' own medians (six rounds: 97 %)."""

    unit: str  # ms or instructions
    p50: float
    low: float
    high: float
    n: int


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """The score, and what was lost of it in points, with the paired 95 % interval where there is one."""

    score: float
    n: int
    drop: float = 0.0
    drop_low: float | None = None
    drop_high: float | None = None
    percent_per_point: float | None = None

    @property
    def lost(self) -> Drop:
        """As a drop, which budgets judge."""
        percent = None if self.percent_per_point is None else self.drop * self.percent_per_point
        interval = None if self.drop_low is None or self.drop_high is None else (self.drop_low, self.drop_high)
        return Drop(self.drop, percent, interval, None, self.percent_per_point)


@dataclasses.dataclass(frozen=True)
class Row:
    """`error` is why the technique failed (the row stays); `unmeasured` why there is no latency."""

    label: str
    runtime: str
    recipe: str
    model_bytes: int | None = None
    bundle_bytes: int | None = None
    latency: Latency | None = None
    accuracy: Accuracy | None = None
    parity: str = ""
    note: str = ""
    error: str = ""
    unmeasured: str = ""
    findings: tuple[Any, ...] = ()


@dataclasses.dataclass(frozen=True)
class Compared:
    """A row against the original. `speedup` is original / this (above 1: faster), `None` where it was not measured."""

    row: Row
    size_ratio: float | None
    speedup: float | None
    speedup_interval: tuple[float, float] | None
    verdict: str
    worth: bool

    def document(self) -> dict[str, Any]:
        """For --json."""
        row = self.row
        return {
            "label": row.label,
            "runtime": row.runtime,
            "recipe": row.recipe,
            "model_bytes": row.model_bytes,
            "bundle_bytes": row.bundle_bytes,
            "size_ratio": self.size_ratio,
            "latency": None if row.latency is None else dataclasses.asdict(row.latency),
            "speedup": self.speedup,
            "speedup_interval": None if self.speedup_interval is None else list(self.speedup_interval),
            "accuracy": None if row.accuracy is None else dataclasses.asdict(row.accuracy),
            "parity": row.parity or None,
            "note": row.note,
            "error": row.error or None,
            "unmeasured": row.unmeasured or None,
            "verdict": self.verdict,
            "worth": self.worth,
            "findings": [dataclasses.asdict(one) for one in row.findings],
        }


def compare(row: Row, original: Row, budget: Budget, where: str) -> Compared:
    """The row against the original; `where` names the device in the verdict."""
    if row.error:
        return Compared(row, None, None, None, f"{row.label}: failed: {row.error}", worth=False)
    size = row.model_bytes / original.model_bytes if row.model_bytes and original.model_bytes else None
    speedup, interval = _speedup(row, original)
    if row is original:
        return Compared(row, 1.0, speedup, interval, "the original: everything is compared with it", worth=False)
    told = [_size_words(size), _speed_words(speedup, interval, where, row), _accuracy_words(row, budget)]
    verdict, worth = _judge(row, size, interval, budget)
    text = f"{row.label}: {', '.join(one for one in told if one)}: {verdict}"
    return Compared(row, size, speedup, interval, text, worth)


def _speedup(row: Row, original: Row) -> tuple[float | None, tuple[float, float] | None]:
    ours, theirs = row.latency, original.latency
    if ours is None or theirs is None or ours.unit != theirs.unit or not ours.low:
        return None, None
    return theirs.p50 / ours.p50, (theirs.low / ours.high, theirs.high / ours.low)


def _size_words(size: float | None) -> str:
    if size is None:
        return ""
    if abs(1 - size) < _LITTLE:
        return "same size"
    return f"{1 - size:.0%} smaller" if size < 1 else f"{size - 1:.0%} larger"


def _speed_words(speedup: float | None, interval: tuple[float, float] | None, where: str, row: Row) -> str:
    if speedup is None or interval is None:
        return f"speed not measured ({row.unmeasured})" if row.unmeasured else "speed not measured"
    if interval[0] <= 1 <= interval[1]:
        return f"no measurable difference in speed on {where}"
    return f"{speedup:.2f}x faster on {where}" if speedup > 1 else f"{1 / speedup:.2f}x slower on {where}"


def _accuracy_words(row: Row, budget: Budget) -> str:
    if row.accuracy is None:
        return "accuracy not known"
    ratio, unit = 1.0, "points"
    if budget.relative is not None:
        ratio, unit = row.accuracy.percent_per_point or 0.0, "%"
    text = f"{row.accuracy.drop * ratio:.1f} {unit} lost" if row.accuracy.drop > 0 else "no accuracy lost"
    low, high = row.accuracy.drop_low, row.accuracy.drop_high
    return text if low is None or high is None else f"{text} ({low * ratio:.1f} to {high * ratio:.1f})"


def _judge(row: Row, size: float | None, interval: tuple[float, float] | None, budget: Budget) -> tuple[str, bool]:
    if row.parity.startswith("fail"):
        return "wrong outputs: not to be used", False
    if row.accuracy is not None and not budget.met(row.accuracy.lost):
        return f"out of the budget of {budget}", False
    faster = interval is not None and interval[0] > 1
    slower = interval is not None and interval[1] < 1
    smaller = size is not None and size < 1 - _LITTLE
    if faster:
        return "worth it here", True
    if slower or not smaller:
        return "not worth it here", False
    return ("worth it for its size" if interval is not None else UNMEASURED), interval is not None


def recommended(rows: list[Compared]) -> Compared | None:
    """The fastest of those that are worth it; None when the original is best."""
    worth = [one for one in rows if one.worth]
    return max(worth, key=lambda one: (one.speedup or 0.0, -(one.size_ratio or 1.0)), default=None)


def to_measure(rows: list[Compared]) -> list[str]:
    """The labels of those that are smaller within the budget and whose speed nobody measured: the smallest first."""
    open_ = [one for one in rows if one.verdict.endswith(UNMEASURED)]
    return [one.row.label for one in sorted(open_, key=lambda one: one.size_ratio or 1.0)]


def advice(rows: list[Compared]) -> str:
    """What to do, in words: a row to take, rows to measure first, or the original."""
    best, waiting = recommended(rows), to_measure(rows)
    if best is not None:
        return f"take: {best.row.label}"
    if waiting:
        return f"measure first: {', '.join(waiting)} (smaller within the budget; speed not measured: give --device)"
    return "take: the original; nothing here was worth it"
