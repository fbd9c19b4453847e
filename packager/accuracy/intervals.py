"""What a sample tells of the truth: 95 % intervals of scores and of paired differences."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

Interval = tuple[float, float]
_Z = 1.959963984540054  # of the normal distribution, for 95 %
_DRAWS = 2000
_DRAWS_OF_FUNCTION = 200
_LOW, _HIGH = 2.5, 97.5


def of_mean(rows: Array) -> tuple[Interval, str]:
    """Of the mean of these rows: Wilson's interval where all are 0 or 1, else the bootstrap's."""
    if ((rows == 0) | (rows == 1)).all():
        return wilson(float(rows.sum()), len(rows)), "Wilson"
    return _bootstrap(rows), "bootstrap"


def wilson(hits: float, n: int) -> Interval:
    """Wilson 1927: the interval of a share, sound for few samples and near 0 and 1."""
    share, z2 = hits / n, _Z * _Z
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # Rounding must not put the share itself outside.
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))


def of_function(score: Callable[[Array], float], n: int, value: float) -> tuple[Interval | None, str, Array | None]:
    """Of a score that is no mean: the bootstrap, where drawing samples anew leaves the score where it is.

    A score that needs all samples in their order (a ranking) does not survive that; in 0..1 it then gets the widest interval
    that a mean of n values in 0..1 can have, value +- z sqrt(value (1 - value) / n); else none. The drawn scores come last:
    the draws are the same for every score of n samples, so that two scores can be compared draw by draw.
    """
    import numpy as np

    from agent.contract.errors import EdgepackError

    generator = np.random.default_rng(0)
    try:
        drawn = np.array([score(generator.integers(0, n, n)) for _ in range(_DRAWS_OF_FUNCTION)])
    except EdgepackError:
        drawn = np.array([])
    if len(drawn) and abs(drawn.mean() - value) <= max(2 * drawn.std(), 1e-9):
        low, high = (float(one) for one in np.percentile(drawn, [_LOW, _HIGH]))
        return (min(low, value), max(high, value)), "bootstrap", drawn
    if not 0 <= value <= 1:
        return None, "unknown", None
    half = _Z * math.sqrt(value * (1 - value) / n)
    return (max(0.0, value - half), min(1.0, value + half)), "bound", None


def of_difference(before: Array, after: Array) -> Interval:
    """Of mean(before) - mean(after) on the same samples.

    Right or wrong: Agresti and Min 2005 (half a sample added to each discordant cell), which is not fooled by samples that
    all agree; other scores: the bootstrap over samples.
    """
    if all(((rows == 0) | (rows == 1)).all() for rows in (before, after)):
        lost, won = float(((before == 1) & (after == 0)).sum()) + 0.5, float(((before == 0) & (after == 1)).sum()) + 0.5
        n = len(before) + 2
        middle = (lost - won) / n
        half = _Z * math.sqrt(lost + won - (lost - won) ** 2 / n) / n
        drop = float(before.mean() - after.mean())
        return min(drop, middle - half), max(drop, middle + half)
    return _bootstrap(before - after)


def of_draws(before: Array, after: Array, drop: float) -> tuple[Interval, float]:
    """Of a drop between two scores that are no means, with its standard error: by the same draws of the same samples."""
    import numpy as np

    lost = before - after
    low, high = (float(one) for one in np.percentile(lost, [_LOW, _HIGH]))
    return (min(low, drop), max(high, drop)), float(lost.std())


def _bootstrap(rows: Array) -> Interval:
    import numpy as np

    generator, mean = np.random.default_rng(0), float(rows.mean())
    drawn = np.array([rows[generator.integers(0, len(rows), len(rows))].mean() for _ in range(_DRAWS)])
    low, high = (float(one) for one in np.percentile(drawn, [_LOW, _HIGH]))
    return min(low, mean), max(high, mean)
