"""The ratio B over A of two bundles measured in turn, and its interval; numpy only.

Within a quad (A B B A, some 40 ms) whatever drifts is the same for both sides, so there every sample of B is divided by
every sample of A; a round's ratio is the median of all these over its quads. Where other work comes and goes the samples of
either side have two levels or more, and their medians jump from one to the other by chance; the ratios do not. This is
Hodges and Lehmann's estimate of a shift (1963), on logarithms. The comparison's is the same authors' for one sample, the
median of the means of every two rounds: each round has processes of its own, whose luck (addresses, page colours) no longer
measuring averages out. The interval resamples whole rounds, and is widened for their small number: Hesterberg (2015),
"What Teachers Should Know about the Bootstrap", the expanded percentile interval.
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
_MOST_OF_A_QUAD = 64  # samples of one side: more ratios of one quad say hardly more
_AT_ONCE = 1 << 22  # means held in memory
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
    return _interval([_round_ratio(one) for one in rounds], level)


def of_p95(rounds: Sequence[PairRound], level: float = 0.95) -> Interval | None:
    """The ratio of 95th percentiles, over each round's samples; None where a round has too few for it."""
    logs = [_round_p95(one) for one in rounds]
    if any(one is None for one in logs):
        return None
    return _interval([one for one in logs if one is not None], level)


def _joined(blocks: list[list[int]]) -> list[int]:
    return [value for block in blocks for value in block]


def _round_ratio(one: PairRound) -> float:
    import numpy as np

    found = []
    for quad in one.quads:
        a, b = (np.log(_some(_joined(side))) for side in (quad.a_ns, quad.b_ns))
        found.append((b[:, None] - a[None, :]).ravel())
    return float(np.median(np.concatenate(found)))


def _some(values: list[int]) -> Any:
    import numpy as np

    return np.asarray(values[:: -(-len(values) // _MOST_OF_A_QUAD)], float)


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
    centers = center(values[random.integers(0, n, (_RESAMPLES, n))])
    tail = expanded_tail((1 - level) / 2, n)
    low, high = np.quantile(centers, [tail, 1 - tail])
    return Interval(*(math.exp(value) for value in (float(center(values[None, :])[0]), float(low), float(high))))


def center(rows: Any) -> Any:
    """Of each row the median of the means of every two of its values, each with itself included (Hodges and Lehmann)."""
    import numpy as np

    left, right = np.triu_indices(rows.shape[1])
    made = np.empty(len(rows))
    step = max(1, _AT_ONCE // len(left))
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        made[start : start + step] = np.median((part[:, left] + part[:, right]) / 2, axis=1)
    return made


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
