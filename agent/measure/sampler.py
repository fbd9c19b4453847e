"""The closed loop: one inference at a time, each timed by the monotonic clock, nothing thrown away."""

from __future__ import annotations

import gc
import statistics
import time
from typing import Any, Callable, Dict, List, Optional

MAX_SAMPLES = 2000000
_PATIENCE = 6
_AGREE = 0.05
_LEAST_WINDOW = 3
_TICKS = 100  # a sample shorter than so many steps of the clock is off by more than 1 %
_READINGS = 200


def warm_up(
    run: Callable[[Dict[str, Any]], Any], feed: Dict[str, Any], seconds: float, runs: int, settle: bool = False
) -> List[int]:
    """Runs until both `seconds` and `runs` are reached; the times in nanoseconds, kept apart from the samples.

    With `settle` it goes on until `settled`, at most `_PATIENCE` times as long.
    """
    clock = time.perf_counter_ns
    begin = clock()
    end, last = begin + int(seconds * 1e9), begin + int(_PATIENCE * seconds * 1e9)
    times: List[int] = []
    check = 0
    while len(times) < MAX_SAMPLES:
        if clock() >= end and len(times) >= runs:
            if not settle or clock() >= last:
                break
            if len(times) >= check:
                if settled(times):
                    break
                check = len(times) + len(times) // 4 + 1
        start = clock()
        run(feed)
        times.append(clock() - start)
    return times


def settled(times: List[int]) -> bool:
    """Whether the last two windows, each a third of the warm-up, have medians within `_AGREE` of each other."""
    width = len(times) // 3
    if width < _LEAST_WINDOW:
        return False
    early, late = statistics.median(times[-2 * width : -width]), statistics.median(times[-width:])
    return abs(early - late) <= _AGREE * min(early, late)


def typical(times: List[int]) -> int:
    """The median of the last third of a warm-up."""
    return int(statistics.median(times[-(len(times) // 3 or 1) :]))


def tick() -> int:
    """The clock's step in nanoseconds, as Python sees it: the least difference between two readings that differ."""
    clock = time.perf_counter_ns
    least = 1 << 62
    for _ in range(_READINGS):
        first = second = clock()
        while second == first:
            second = clock()
        least = min(least, second - first)
    return least


def loops_for(typical_ns: int, tick_ns: int) -> int:
    """How many inferences a sample must hold for the clock's step to be at most 1 % of it."""
    return max(1, -(-_TICKS * tick_ns // max(typical_ns, 1)))


def sample(
    run: Callable[..., Any],
    feed: Dict[str, Any],
    seconds: float,
    runs: Optional[int],
    lead: Any = None,
    loops: int = 1,
) -> List[int]:
    """Exactly `runs` timed inferences, or as many as `seconds` hold (at least one); nanoseconds, in order. Each is
    `run(feed)`, or `run(lead, feed)` with a `lead`. With `loops` each sample is the mean of so many in a row.

    The garbage collector waits outside: its pauses are the interpreter's, not the model's.
    """
    if loops > 1:
        return _looped(run, feed, seconds, runs, lead, loops)
    gc.collect()
    gc.disable()
    try:
        return loop(run, feed, seconds, runs, lead)
    finally:
        gc.enable()


def loop(
    run: Callable[..., Any], feed: Dict[str, Any], seconds: float, runs: Optional[int], lead: Any = None
) -> List[int]:
    """As `sample`, the garbage collector left as it is."""
    clock = time.perf_counter_ns
    limit = MAX_SAMPLES if runs is None else runs
    times: List[int] = []
    append = times.append
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
    return times


def _looped(
    run: Callable[..., Any], feed: Dict[str, Any], seconds: float, runs: Optional[int], lead: Any, loops: int
) -> List[int]:
    arguments = (feed,) if lead is None else (lead, feed)

    def several(_: Dict[str, Any]) -> None:
        for _turn in turns:
            run(*arguments)

    turns = range(loops)
    count = None if runs is None else -(-runs // loops)
    return [taken // loops for taken in sample(several, feed, seconds, count)]
