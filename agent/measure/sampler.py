"""The closed loop: one inference at a time, each timed by the monotonic clock, nothing thrown away."""

from __future__ import annotations

import gc
import time
from typing import Any, Callable, Dict, List, Optional

MAX_SAMPLES = 2000000


def warm_up(run: Callable[[Dict[str, Any]], Any], feed: Dict[str, Any], seconds: float, runs: int) -> List[int]:
    """Runs until both `seconds` and `runs` are reached; the times in nanoseconds, kept apart from the samples."""
    clock = time.perf_counter_ns
    end = clock() + int(seconds * 1e9)
    times: List[int] = []
    while (clock() < end or len(times) < runs) and len(times) < MAX_SAMPLES:
        start = clock()
        run(feed)
        times.append(clock() - start)
    return times


def sample(
    run: Callable[..., Any], feed: Dict[str, Any], seconds: float, runs: Optional[int], lead: Any = None
) -> List[int]:
    """Exactly `runs` timed inferences, or as many as `seconds` hold (at least one); nanoseconds, in order. Each is
    `run(feed)`, or `run(lead, feed)` with a `lead`.

    The garbage collector waits outside: its pauses are the interpreter's, not the model's.
    """
    clock = time.perf_counter_ns
    limit = MAX_SAMPLES if runs is None else runs
    times: List[int] = []
    append = times.append
    gc.collect()
    gc.disable()
    try:
        end = clock() + (int(seconds * 1e9) if runs is None else 1 << 62)
        while len(times) < limit:
            start = clock()
            if lead is None:
                run(feed)
            else:
                run(lead, feed)
            stop = clock()
            append(stop - start)
            if stop >= end:
                break
    finally:
        gc.enable()
    return times
