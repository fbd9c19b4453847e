"""Runs of one series over time: where its level changed, and what else changed there."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

from agent.contract.report import Report

if TYPE_CHECKING:
    import numpy as np

    from packager.results.pairings import ComparisonRow
    from packager.results.store import Row
    from packager.results.tables import Series

LEAST = 10
"""Fewer runs cannot tell a step from chance at this level."""
_EDGE = 3  # runs on either side of a change
_ALPHA = 0.01
_SHUFFLES = 999
_MARGIN = 0.02  # a step below this is no news, however sure it is: the margin of `edgepack compare`


@dataclasses.dataclass(frozen=True)
class Change:
    """The level from `run` on over the level before it; `p` is the chance of such a step where there is none."""

    run: int
    before: int
    ratio: float
    p: float


def by_series(rows: Sequence[Row]) -> dict[Series, list[Row]]:
    """The runs that have a median, oldest first, by series."""
    found: dict[Series, list[Row]] = {}
    for row in rows:
        if row.p50 is not None:
            found.setdefault(row.series, []).append(row)
    return found


def changes(rows: Sequence[Row]) -> list[Change]:
    """Where the median changed its level, oldest first. `rows` are one series; fewer than `LEAST` show no change.

    Ranks before and after every place, as Pettitt (1979), each standardised; the largest is held against shuffled orders
    (999, always the same ones), so that an odd run is no step. Found steps divide the series, and the parts are searched.
    """
    import numpy as np

    medians = np.array([row.p50 for row in rows], float)
    found: list[Change] = []
    parts = [(0, len(medians))]
    while parts:
        start, end = parts.pop()
        if end - start < LEAST:
            continue
        at, p = _step(medians[start:end])
        ratio = float(np.median(medians[start + at : end]) / np.median(medians[start : start + at]))
        if p > _ALPHA or abs(ratio - 1) < _MARGIN:
            continue
        found.append(Change(rows[start + at].run, rows[start + at - 1].run, ratio, p))
        parts += [(start, start + at), (start + at, end)]
    return sorted(found, key=lambda one: one.run)


def _step(values: np.ndarray[Any, Any]) -> tuple[int, float]:
    """The likeliest place of a step, and the chance of one as clear in a random order."""
    import numpy as np

    n = len(values)
    order = np.argsort(np.argsort(values)) - (n - 1) / 2
    before = np.arange(_EDGE, n - _EDGE + 1)
    scale = np.sqrt(before * (n - before) * (n + 1) / 12)
    draw = np.random.default_rng(0)
    shuffled = draw.permuted(np.tile(order, (_SHUFFLES, 1)), axis=1)
    seen = np.abs(np.cumsum(order)[before - 1]) / scale
    chance = (np.abs(np.cumsum(shuffled, axis=1)[:, before - 1]) / scale).max(axis=1)
    return int(before[seen.argmax()]), float((1 + (chance >= seen.max() - 1e-9).sum()) / (_SHUFFLES + 1))


def what_changed(before: Report, after: Report) -> list[str]:
    """What else differs between the two runs at a change: the first suspects."""
    pairs = (
        ("bundle", before.bundle[:19], after.bundle[:19]),
        ("runtime", f"{before.runtime.name} {before.runtime.version}", f"{after.runtime.name} {after.runtime.version}"),
        ("kernel", before.facts.kernel, after.facts.kernel),
        ("system", before.facts.os, after.facts.os),
        ("numpy", str(before.facts.numpy), str(after.facts.numpy)),
        ("processor", before.facts.cpu_model, after.facts.cpu_model),
        ("placement", _places(before), _places(after)),
        ("governor", _governor(before), _governor(after)),
    )
    return [f"{what}: {old} -> {new}" for what, old, new in pairs if old != new]


def _places(report: Report) -> str:
    return ", ".join(f"{nodes} on {name}" for name, nodes in sorted(report.runtime.placement.items()))


def _governor(report: Report) -> str:
    return str(report.rounds[0].before.governor) if report.rounds else ""


def doomed(
    rows: Sequence[Row], held: Sequence[int], *, keep: int | None, older_than: float | None, now: float
) -> list[int]:
    """The runs that a retention lets go: beyond the newest `keep` of their series, and stored more than `older_than` seconds
    ago, where both are given. Baselines (`held`) stay.
    """
    return _let_go([(row.run, row.series, row.stored_unix) for row in rows], held, keep, older_than, now)


def doomed_comparisons(
    rows: Sequence[ComparisonRow], *, keep: int | None, older_than: float | None, now: float
) -> list[int]:
    """The same of comparisons: those of one device and the same two bundles' names are a series."""
    return _let_go([(row.number, row.what, row.stored_unix) for row in rows], (), keep, older_than, now)


def _let_go(
    rows: Sequence[tuple[int, Hashable, float]],
    held: Sequence[int],
    keep: int | None,
    older_than: float | None,
    now: float,
) -> list[int]:
    """Of (number, series, stored) the numbers that go."""
    kept: set[int] = set(held)
    if keep is not None:
        series: dict[Hashable, list[int]] = {}
        for number, key, _ in rows:
            series.setdefault(key, []).append(number)
        for numbers in series.values():
            kept.update(sorted(numbers)[max(0, len(numbers) - keep) :])
    return [
        number for number, _, stored in rows if number not in kept and (older_than is None or stored < now - older_than)
    ]
