"""From minute 0 to the end: the closed loop cut into windows, with a look at the board after each."""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, List, Tuple

from agent.contract import statistics
from agent.contract.report import ProbeReading, Window
from agent.measure import sampler
from agent.probes import reading

_WINDOWS = 240
_MOST = sampler.MAX_SAMPLES
_LEAST_SECONDS = 0.25
_TOLD = 30.0  # seconds between two words about it


def course(
    run: Callable[..., Any],
    feed: Dict[str, Any],
    seconds: float,
    lead: Any = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Tuple[List[int], List[Window]]:
    """The samples of `seconds`, in order, and their windows: at most 240, none below 0.25 s. A window keeps as many samples
    as leave room for all of them (two million in all), taken evenly, so that none of its stretches counts more.
    """
    clock = time.perf_counter_ns
    width = max(_LEAST_SECONDS, seconds / _WINDOWS)
    room = max(1, int(_MOST * width / max(seconds, width)))
    samples: List[int] = []
    windows: List[Window] = []
    zero = told = clock()
    end = zero + int(seconds * 1e9)
    while True:
        begin = clock()
        times = sampler.sample(run, feed, min(width, max(0.0, (end - begin) / 1e9)), None, lead)
        wall = clock() - begin
        kept = times[:: -(-len(times) // room)]
        samples += kept
        windows.append(Window(begin - zero, wall, len(times), len(kept), reading.take()))
        now = clock()
        if now >= end:
            return samples, windows
        if now - told > _TOLD * 1e9:
            told = now
            progress(_words(now - zero, seconds, times, windows[-1].reading))


def _words(past_ns: int, seconds: float, times: List[int], board: ProbeReading) -> str:
    said = "minute %.1f of %.1f: %.3f ms" % (past_ns / 6e10, seconds / 60, statistics.summary(times)["p50"] / 1e6)
    if board.frequency_mhz:
        said += ", %.0f MHz" % max(board.frequency_mhz)
    if board.temperature_c is not None:
        said += ", %.0f C" % board.temperature_c
    return said
