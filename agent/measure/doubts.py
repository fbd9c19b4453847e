"""Doubts that the samples themselves raise: not settled, drifting, on several levels; and who else was at work meanwhile."""

from __future__ import annotations

import math
from typing import Iterator, List, Optional, Tuple

from agent.contract import statistics
from agent.contract.finding import INFO, WARNING, Finding
from agent.contract.report import ProbeReading, Round
from agent.measure import sampler

_DRIFT = 0.05
_LEAST_FOR_DRIFT = 60
_FIRST = 5.0  # times the median
_MOVED = 1.1
_OTHERS = 0.2  # cores
_LEAST_FOR_MODES = 300
_BINS = 48
_PEAK, _VALLEY, _APART = 0.1, 0.5, 0.1  # share of all samples; of the lower peak; of the lower level
_PARTS = 3
_HOT = 75.0  # boards throttle from 80 to 85 degrees on
_TICKS = 100  # of the clock in a sample, as in the sampler
_SHORT_NS = 50_000  # told beforehand only where models of 50 us are concerned


def of_samples(rounds: List[Round]) -> Iterator[Finding]:
    """Each doubt with its advice."""
    yield from _unsettled(rounds)
    yield from _drift(rounds)
    samples = [sample for one in rounds for sample in one.samples_ns]
    levels = modes(samples)
    if len(levels) > 1:
        told = " and ".join("%.3f ms (%.0f %%)" % (level / 1e6, 100 * share) for level, share in levels)
        yield Finding(
            "modes",
            WARNING,
            "the samples lie on %d levels: %s; a median may lie between them" % (len(levels), told),
            "something switches: cores of two kinds (taskset), clocks, other work; look at the plot of the distribution",
        )
    yield from _first(rounds, samples)
    yield from _clock(rounds)


def _unsettled(rounds: List[Round]) -> Iterator[Finding]:
    loose = [one for one in rounds if len(one.warmup_ns) >= _PARTS * _PARTS and not sampler.settled(one.warmup_ns)]
    if loose:
        seconds = max(sum(one.warmup_ns) for one in loose) / 1e9
        text = "%d of %d warm-ups had not settled after %.1f s" % (len(loose), len(rounds), seconds)
        yield Finding(
            "unsettled", WARNING, text, "stop other work, or measure with --sustained: it shows when it settles"
        )


def _drift(rounds: List[Round]) -> Iterator[Finding]:
    """The same way in most rounds, third after third: chance rarely does that."""
    changes = []
    for one in rounds:
        size = len(one.samples_ns) // _PARTS
        if _PARTS * size < _LEAST_FOR_DRIFT:
            return
        first, second, third = (
            statistics.summary(one.samples_ns[index * size : (index + 1) * size])["p50"] for index in range(_PARTS)
        )
        steady = first < second < third or first > second > third
        changes.append(third / first - 1 if steady else 0.0)
    for sign, word in ((1, "slower"), (-1, "faster")):
        alike = [change for change in changes if sign * change > _DRIFT]
        if alike and 2 * len(alike) > len(changes):
            text = "it grows %s while it runs: %.0f %% within a round" % (word, 100 * max(map(abs, alike)))
            advice = "it heats up: cool the board" if sign > 0 else "it was not warm: longer rounds"
            more = "" if rounds[0].windows else "; --sustained shows where it ends"
            yield Finding("drift", WARNING, text, advice + more)
            return


def modes(samples: List[int]) -> List[Tuple[float, float]]:
    """The levels of the samples in ns, with their shares, when there are two or more; [] for one, or too few samples.

    On a logarithmic histogram from p1 to p99, smoothed: peaks that hold a tenth of the samples each, at least 10 % apart,
    with a valley below half of the lower peak. A long tail has no second peak.
    """
    if len(samples) < _LEAST_FOR_MODES:
        return []
    ordered = sorted(samples)
    low, high = (math.log(max(1.0, statistics.percentile(ordered, share))) for share in (1, 99))
    if high - low < math.log1p(_APART):
        return []
    counts = [0.0] * _BINS
    for value in samples:
        place = int((math.log(max(1, value)) - low) / (high - low) * _BINS)
        if 0 <= place < _BINS:
            counts[place] += 1
    for _ in range(2):
        padded = [counts[0], *counts, counts[-1]]
        counts = [(padded[i - 1] + 2 * padded[i] + padded[i + 1]) / 4 for i in range(1, _BINS + 1)]
    edges = _valleys(counts)
    found = []
    for left, right in zip([0, *edges], [*edges, _BINS]):
        share = sum(counts[left:right]) / len(samples)
        top = max(range(left, right), key=counts.__getitem__)
        found.append((math.exp(low + (top + 0.5) / _BINS * (high - low)), share))
    large = [one for one in found if one[1] >= _PEAK]
    apart = all(b[0] >= (1 + _APART) * a[0] for a, b in zip(large, large[1:]))
    return large if len(large) > 1 and apart else []


def _valleys(counts: List[float]) -> List[int]:
    """Where the histogram falls below half of the lower of the peaks on both sides, one place for each valley."""
    found: List[int] = []
    start, climbed = 0, 0.0
    while True:
        climbed, lowest, at = 0.0, math.inf, start
        for index in range(start, len(counts)):
            value = counts[index]
            if value > climbed and lowest == math.inf:
                climbed = value
            elif value < _VALLEY * climbed and value < lowest:
                lowest, at = value, index
            elif lowest < math.inf and lowest < _VALLEY * min(climbed, value):
                found.append(at)
                start = at
                break
        else:
            return found


def _first(rounds: List[Round], samples: List[int]) -> Iterator[Finding]:
    usual = statistics.summary(samples)["p50"]
    first = statistics.summary([one.first_ns for one in rounds])["p50"]
    if usual and first > _FIRST * usual:
        text = "the first inference takes %.1f ms, %.0f times the median" % (first / 1e6, first / usual)
        yield Finding("first-run", INFO, text, "an application should run one before the first that counts")


def _clock(rounds: List[Round]) -> Iterator[Finding]:
    for one in rounds:
        if one.loops > 1:
            text = "the clock's step of %d ns is coarse here: each sample is the mean of %d inferences in a row" % (
                one.tick_ns or 0,
                one.loops,
            )
            yield Finding("coarse-clock", INFO, text, "percentiles are those of such means; single ones scatter more")
            break
    others = max((one.others_cores for one in rounds if one.others_cores is not None), default=0.0)
    if others >= _OTHERS:
        text = "other processes took %.1f cores while it was measured" % others
        yield Finding("busy-cores", WARNING, text, "stop them (top shows them), or compare in turn: edgepack compare")
    stolen = max((one.stolen_cores for one in rounds if one.stolen_cores is not None), default=0.0)
    if stolen >= _OTHERS:
        text = "the host gave %.1f of this virtual machine's cores to others while it was measured" % stolen
        yield Finding("stolen", WARNING, text, "its times are no board's; compare in turn: edgepack compare")
    yield from _moved([one.after for one in rounds])  # before a round the board may rest


def _moved(readings: List[ProbeReading]) -> Iterator[Finding]:
    clocks = [max(one.frequency_mhz) for one in readings if one.frequency_mhz]
    if clocks and max(clocks) > _MOVED * min(clocks):
        text = "the clock ended at %.0f MHz after one round, at %.0f after another" % (min(clocks), max(clocks))
        yield Finding("clock-moved", INFO, text, "for steady numbers fix it: cpupower frequency-set -g performance")


def beforehand(board: ProbeReading, others: Optional[float], tick_ns: int) -> List[Finding]:
    """What will trouble a measurement, told before there is one."""
    found: List[Finding] = []
    if others is not None and others >= _OTHERS:
        text = "other processes take %.1f cores" % others
        found.append(Finding("busy-cores", WARNING, text, "stop them before measuring (top shows them)"))
    if board.temperature_c is not None and board.temperature_c >= _HOT:
        text = "it is at %.0f degrees C already" % board.temperature_c
        found.append(Finding("hot", WARNING, text, "let it cool, or its clock may fall while it is measured"))
    if tick_ns * _TICKS > _SHORT_NS:
        text = "the clock steps by %d ns: samples below %.0f us will be means of several inferences" % (
            tick_ns,
            tick_ns * _TICKS / 1e3,
        )
        found.append(Finding("coarse-clock", INFO, text, "nothing to do: it is done, and told in the report"))
    return found
