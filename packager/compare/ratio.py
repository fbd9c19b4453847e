"""The ratio B over A of two bundles measured in turn, and its interval; numpy only.

A round's ratio is the median over its quads (A B B A) of the ratio of medians: what drifts more slowly than a quad
cancels. The comparison's is the median over its rounds, in logarithms: each round has processes of its own, whose luck
(addresses, page colours) no longer measuring averages out. The interval resamples whole rounds, and is widened for their
small number: Hesterberg (2015), "What Teachers Should Know about the Bootstrap", the expanded percentile interval.
"""

from __future__ import annotations

import dataclasses
import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from agent.contract.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.contract.pairing import PairRound

LEAST_ROUNDS = 6
_RESAMPLES = 4000
_P95 = 95
_LEAST_FOR_P95 = 20  # samples of one side in a round, as in agent.contract.statistics


@dataclasses.dataclass(frozen=True)
class Interval:
    """A ratio and the interval that holds the true one with the confidence asked for."""

    estimate: float
    low: float
    high: float


def of_medians(rounds: Sequence[PairRound], level: float = 0.95) -> Interval:
    """The ratio of medians. Raises UsageError below LEAST_ROUNDS."""
    return _interval([_round_median(one) for one in rounds], level)


def of_p95(rounds: Sequence[PairRound], level: float = 0.95) -> Interval | None:
    """The ratio of 95th percentiles, over each round's samples; None where a round has too few for it."""
    logs = [_round_p95(one) for one in rounds]
    if any(one is None for one in logs):
        return None
    return _interval([one for one in logs if one is not None], level)


def _joined(blocks: list[list[int]]) -> list[int]:
    return [value for block in blocks for value in block]


def _round_median(one: PairRound) -> float:
    import numpy as np

    logs = []
    for quad in one.quads:
        a, b = float(np.median(_joined(quad.a_ns))), float(np.median(_joined(quad.b_ns)))
        logs.append(math.log(b / a))
    return float(np.median(logs))


def _round_p95(one: PairRound) -> float | None:
    import numpy as np

    sides = [
        [value for quad in one.quads for block in getattr(quad, side) for value in block] for side in ("a_ns", "b_ns")
    ]
    if min(map(len, sides)) < _LEAST_FOR_P95:
        return None
    a, b = (float(np.percentile(side, _P95)) for side in sides)
    return math.log(b / a)


def _interval(logs: Sequence[float], level: float) -> Interval:
    import numpy as np

    n = len(logs)
    if n < LEAST_ROUNDS:
        raise UsageError(
            f"{n} rounds are too few for an interval", expected=f"at least {LEAST_ROUNDS}", code="few-rounds"
        )
    values: Any = np.asarray(logs)
    random = np.random.default_rng(n)  # the same samples give the same interval
    means = np.median(values[random.integers(0, n, (_RESAMPLES, n))], axis=1)
    tail = expanded_tail((1 - level) / 2, n)
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(*(math.exp(value) for value in (float(np.median(values)), float(low), float(high))))


def expanded_tail(tail: float, n: int) -> float:
    """The share to cut off at each end so that `n` clusters cover as promised: that of sqrt(n/(n-1)) t(n-1)."""
    wide = math.sqrt(n / (n - 1)) * student(1 - tail, n - 1)
    return NormalDist().cdf(-wide)


def student(share: float, freedom: int) -> float:
    """Student's t quantile, by Abramowitz and Stegun 26.7.5; within 1 % for 5 degrees of freedom and above."""
    z = NormalDist().inv_cdf(share)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / float(freedom) ** power for power, term in enumerate(terms, 1))
