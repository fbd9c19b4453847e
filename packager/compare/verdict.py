"""Faster, slower, same, or inconclusive: never more than the interval says."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from packager.compare import ratio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.contract.pairing import PairRound
    from packager.compare.ratio import Interval

FASTER, SLOWER, SAME, INCONCLUSIVE = "faster", "slower", "same", "inconclusive"
MARGIN = 0.02
_ALPHA = 0.05
_MOST_MORE = 1000


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What `rounds` rounds say of B against A. `more_rounds` would decide, if they scatter alike (None: too many to say)."""

    verdict: str
    ratio: Interval
    p95_ratio: Interval | None
    rounds: int
    level: float
    margin: float
    more_rounds: int | None


def judge(rounds: Sequence[PairRound], margin: float = MARGIN, look: int = 0) -> Judgement:
    """The verdict. `look` 0: one look, 95 %. From 1 on: the n-th look at growing data, which shares the 5 % with all others:
    1 / (n (n + 1)) of it each, so that looking again and again raises no more false alarms.
    """
    level = 1 - (_ALPHA / (look * (look + 1)) if look else _ALPHA)
    found = ratio.of_medians(rounds, level)
    verdict = verdict_of(found, margin)
    more = more_rounds(found, len(rounds), margin) if verdict == INCONCLUSIVE else 0
    return Judgement(verdict, found, ratio.of_p95(rounds, level), len(rounds), level, margin, more)


def verdict_of(found: Interval, margin: float) -> str:
    """`slower` and `faster` only when the whole interval lies beyond the margin, `same` when it lies within."""
    if found.low > 1 + margin:
        return SLOWER
    if found.high < 1 / (1 + margin):
        return FASTER
    if found.low >= 1 / (1 + margin) and found.high <= 1 + margin:
        return SAME
    return INCONCLUSIVE


def more_rounds(found: Interval, rounds: int, margin: float) -> int | None:
    """How many more would bring the interval to one side of the nearest bound: its width shrinks with their root."""
    center, half = math.log(found.estimate), (math.log(found.high) - math.log(found.low)) / 2
    edge = math.log(1 + margin)
    distance = min(abs(center - edge), abs(center + edge))
    if not distance or rounds * (half / distance) ** 2 - rounds > _MOST_MORE:
        return None
    return max(1, math.ceil(rounds * (half / distance) ** 2 - rounds))
