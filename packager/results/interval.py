"""How far one report's median may be trusted: a bootstrap that respects rounds and neighbouring samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.contract.report import Report
from packager.results.document import counts_instructions, instructions

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST = 20_000  # samples drawn from: a report may hold a million
_DRAWS = 200
_BLOCKS = 10  # of each round: neighbours share their noise, so they are drawn together
_LEAST = 20
_NS_PER_MS = 1e6


def values(report: Report) -> list[list[float]]:
    """Each round's samples in milliseconds, or in instructions where the report counts them."""
    if counts_instructions(report):
        return [[float(value) for value in instructions(report, one.samples_ns)] for one in report.rounds]
    return [[value / _NS_PER_MS for value in one.samples_ns] for one in report.rounds]


def median_interval(rounds: Sequence[Sequence[float]]) -> tuple[float, float] | None:
    """The 95 % interval of the median: rounds are drawn anew, then blocks of neighbouring samples in each (Davison and
    Hinkley, 1997, sections 3.8 and 8.2). The same samples give the same interval. None for fewer than 20 samples.
    """
    import numpy as np

    total = sum(len(one) for one in rounds)
    if total < _LEAST:
        return None
    step = max(1, total // _MOST)
    blocks = [np.array_split(np.asarray(one)[::step], _BLOCKS) for one in rounds if len(one)]
    draw = np.random.default_rng(0)
    medians = []
    for _ in range(_DRAWS):
        picks = draw.integers(len(blocks), size=len(blocks))
        parts = [blocks[pick][index] for pick in picks for index in draw.integers(_BLOCKS, size=_BLOCKS)]
        whole = np.concatenate(parts)
        if whole.size:
            medians.append(float(np.median(whole)))
    return float(np.percentile(medians, 2.5)), float(np.percentile(medians, 97.5))
