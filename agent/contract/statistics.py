"""Statistics of raw samples, derived when they are read; equal to numpy's linear percentiles, without numpy."""

from __future__ import annotations

import math
from typing import Any, Dict, List, Optional, Sequence

# A percentile needs samples beyond it: p99 of fewer than 100 samples is the maximum under another name.
_LEAST = {50: 1, 90: 10, 95: 20, 99: 100}


def percentile(ordered: Sequence[float], share: float) -> float:
    """The linear-interpolation percentile (type 7 of Hyndman and Fan, 1996; numpy's default) of sorted values."""
    place = (len(ordered) - 1) * share / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def middle(values: Sequence[float]) -> float:
    """The mean of the middle half: blind to what was preempted, like the median, and finer than a clock of microseconds."""
    ordered = sorted(values)
    quarter = len(ordered) // 4
    kept = ordered[quarter : len(ordered) - quarter]
    return math.fsum(kept) / len(kept)


def supported(n: int, share: int) -> bool:
    """Whether `n` samples say anything of this percentile."""
    return n >= _LEAST[share]


def summary(samples: Sequence[int]) -> Dict[str, Any]:
    """n, mean, std (n - 1), min, max, p50, p90, p95, p99 in the samples' unit; null where n does not allow it."""
    n = len(samples)
    if not n:
        return {"n": 0, **dict.fromkeys(("mean", "std", "min", "max", "p50", "p90", "p95", "p99"))}
    ordered: List[float] = sorted(float(sample) for sample in samples)
    mean = math.fsum(ordered) / n
    std: Optional[float] = None
    if n > 1:
        std = math.sqrt(math.fsum((value - mean) ** 2 for value in ordered) / (n - 1))
    result: Dict[str, Any] = {"n": n, "mean": mean, "std": std, "min": ordered[0], "max": ordered[-1]}
    for share in _LEAST:
        result["p%d" % share] = percentile(ordered, share) if supported(n, share) else None
    return result
