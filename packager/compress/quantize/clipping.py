"""Where to clip an activation's range, by its histogram: the least squared error, the least entropy lost, or a percentile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from packager.recipe import Recipe

    Array = np.ndarray[Any, Any]

BINS = 2048
MOST_SAMPLES = 64  # enough for a histogram
_LEVELS = 255
_KEPT = tuple(1 - 0.05 * step for step in range(16))  # of each side's length: 1 down to 0.25
_NO_CHANCE = 1e-9
_LEAST_STEPS = 8  # of 255: a part that has fewer is as good as gone


def lost(part: float, whole: float) -> bool:
    """Whether values that spread over `part` are as good as gone in the 8 bits of a scale that spreads over `whole`."""
    return part * _LEVELS < _LEAST_STEPS * whole


def clipped(hist: Array, low: float, high: float, recipe: Recipe, *, symmetric: bool) -> tuple[float, float]:
    """The ends, 0 between them, that the recipe's method (mse, entropy or percentile) gives; `hist` has equal bins."""
    if recipe.method == "percentile":
        return percentile_clip(hist, low, high, recipe.percentile)
    clip = entropy_clip if recipe.method == "entropy" else best_clip
    return clip(hist, low, high, symmetric=symmetric)


def percentile_clip(hist: Array, low: float, high: float, percentile: float) -> tuple[float, float]:
    """The ends, 0 between them, beyond which 100 - `percentile` percent of the values lie, half of them on each side where
    there are two.
    """
    import numpy as np

    shares = np.cumsum(hist) / max(float(hist.sum()), 1.0)
    beyond = (1 - percentile / 100) / (2 if low < 0 < high else 1)
    width = (high - low) / len(hist)
    left = low + width * int(np.searchsorted(shares, beyond, side="right")) if low < 0 else low
    right = low + width * (int(np.searchsorted(shares, 1 - beyond)) + 1) if high > 0 else high
    return min(left, 0.0), max(min(right, high), 0.0)


def _candidates(low: float, high: float) -> Iterator[tuple[float, float]]:
    """The grid of ends that both searches below try."""
    for left in _KEPT if low < 0 else (1.0,):
        for right in _KEPT if high > 0 else (1.0,):
            yield low * left, high * right


def _middles(hist: Array, low: float, high: float) -> Array:
    import numpy as np

    middles: Array = low + (high - low) / len(hist) * (np.arange(len(hist)) + 0.5)
    return middles


def entropy_clip(hist: Array, low: float, high: float, *, symmetric: bool) -> tuple[float, float]:
    """The ends at which the values, clipped and rounded, tell most of how they were distributed: the smallest
    Kullback-Leibler divergence, as TensorRT chooses its ranges (Migacz 2017), on the same grid as `best_clip`.
    """
    import numpy as np

    middles = _middles(hist, low, high)
    best, found = np.inf, (low, high)
    for ends in _candidates(low, high):
        inside = (middles >= ends[0]) & (middles <= ends[1])
        kept = np.where(inside, hist, 0.0)
        if not kept.any():
            continue
        clipped = kept.copy()
        places = np.flatnonzero(inside)
        clipped[places[0]] += hist[: places[0]].sum()
        clipped[places[-1]] += hist[places[-1] + 1 :].sum()
        reach = 2 * max(-ends[0], ends[1]) if symmetric else ends[1] - ends[0]
        levels = np.floor((middles[places] - ends[0]) / (reach / _LEVELS)).astype(int)
        alive = kept[places] > 0
        sums = np.bincount(levels, kept[places])
        counts = np.maximum(np.bincount(levels, alive), 1)
        spread = np.where(alive, (sums / counts)[levels], 0.0)
        p, q = clipped[places] / clipped.sum(), spread / spread.sum()
        # A bin that holds clipped values only has no q: as good as nothing, but no infinity.
        divergence = float((p[p > 0] * np.log(p[p > 0] / np.maximum(q[p > 0], _NO_CHANCE))).sum())
        if divergence < best:
            best, found = divergence, ends
    return found


def best_clip(hist: Array, low: float, high: float, *, symmetric: bool) -> tuple[float, float]:
    """The ends, 0 between them, at which `hist` (of equal bins from low to high) has its smallest squared error."""
    import numpy as np

    middles = _middles(hist, low, high)
    best, found = np.inf, (low, high)
    for ends in _candidates(low, high):
        reach = 2 * max(-ends[0], ends[1]) if symmetric else ends[1] - ends[0]
        step = reach / _LEVELS
        beyond = middles - np.clip(middles, *ends)
        # Uniform rounding has the variance step^2 / 12 (Bennett 1948).
        error = float((hist * beyond**2).sum() + hist.sum() * step * step / 12)
        if error < best:
            best, found = error, ends
    return found
