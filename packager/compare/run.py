"""Two bundles on one device: measured in turn, judged, and measured on while that is asked for and needed."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from agent.contract.finding import Finding
from packager.compare import verdict
from packager.compare.ratio import Interval

if TYPE_CHECKING:
    from pathlib import Path

    from agent.contract.pairing import Pairing
    from agent.contract.report import Parity, Report
    from packager.device.device import Device

MOST_ROUNDS = 96  # with --until-decided


@dataclasses.dataclass(frozen=True)
class Side:
    """What is told of A and of B: the median over all of its samples, in `unit`."""

    bundle: str
    name: str
    recipe: str
    model_bytes: int
    parity: Parity | None
    n: int
    p50: float


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The judgement with all that it rests on; `seconds` is the time on the device."""

    device: str
    judgement: verdict.Judgement
    a: Side
    b: Side
    unit: str  # ms | instructions
    exact: bool
    seconds: float
    findings: list[Finding]
    pairings: list[Pairing]


def compare(
    device: Device,
    a: str | Path,
    b: str | Path,
    *,
    margin: float = verdict.MARGIN,
    until_decided: bool = False,
    most_rounds: int = MOST_ROUNDS,
    **options: Any,
) -> Comparison:
    """`options` are those of PairOptions. Until decided, as many rounds again are added while the verdict is inconclusive,
    up to `most_rounds`. A device whose clock counts instructions is compared exactly.
    """
    if device.counts_instructions:
        return _exactly(device, a, b, margin, options)
    pairings = [device.compare(a, b, **options)]
    judgement = verdict.judge(_rounds(pairings), margin, 1 if until_decided else 0)
    while until_decided and judgement.verdict == verdict.INCONCLUSIVE and judgement.rounds < most_rounds:
        device.progress(f"{judgement.rounds} rounds decide nothing yet: {pairings[0].options.rounds} more")
        pairings.append(device.compare(a, b, **options))
        judgement = verdict.judge(_rounds(pairings), margin, len(pairings))
    return of_pairings(device.address, pairings, judgement)


def again(address: str, pairings: list[Pairing], margin: float, looks: int) -> Comparison:
    """A stored comparison, judged as it was; `looks` as in `verdict.judge`."""
    return of_pairings(address, pairings, verdict.judge(_rounds(pairings), margin, looks))


def of_pairings(address: str, pairings: list[Pairing], judgement: verdict.Judgement) -> Comparison:
    """What was seen, and how it was judged, in one."""
    found = {finding.code: finding for pairing in pairings for finding in pairing.findings}
    return Comparison(
        device=address,
        judgement=judgement,
        a=_side(pairings, "a"),
        b=_side(pairings, "b"),
        unit="ms",
        exact=False,
        seconds=sum(pairing.seconds for pairing in pairings),
        findings=list(found.values()),
        pairings=pairings,
    )


def _rounds(pairings: list[Pairing]) -> list[Any]:
    return [one for pairing in pairings for one in pairing.rounds]


def _side(pairings: list[Pairing], key: str) -> Side:
    from agent.contract import statistics

    quads = (quad for one in _rounds(pairings) for quad in one.quads)
    samples = [value for quad in quads for block in getattr(quad, f"{key}_ns") for value in block]
    return _measured(getattr(pairings[0], key), len(samples), statistics.summary(samples)["p50"] / 1e6)


def _measured(told: Any, n: int, p50: float) -> Side:
    """`told` is a report, or a side of a pairing: both name the bundle alike."""
    return Side(
        bundle=told.bundle,
        name=told.name,
        recipe=told.recipe,
        model_bytes=told.model_bytes,
        parity=told.parity,
        n=n,
        p50=p50,
    )


def _exactly(device: Device, a: str | Path, b: str | Path, margin: float, options: dict[str, Any]) -> Comparison:
    """Instructions do not scatter as times do: the interval is that of the most extreme counts seen."""
    from packager.results.compare import compare as checked
    from packager.results.document import instructions, samples_ns

    asked = {key: options[key] for key in ("threads", "provider") if key in options}
    reports = [device.bench(one, **asked) for one in (a, b)]
    told = checked(*reports)  # refuses what cannot be compared
    left, right = (instructions(report, samples_ns(report)) for report in reports)
    found = Interval(told.p50_ratio, min(right) / max(left), max(right) / min(left))
    rounds = len(reports[0].rounds)
    judgement = verdict.Judgement(verdict.verdict_of(found, margin), found, None, rounds, 1.0, margin, None)
    codes = {finding.code: finding for report in reports for finding in report.findings}
    return Comparison(
        device=device.address,
        judgement=judgement,
        a=_counted(reports[0], left),
        b=_counted(reports[1], right),
        unit="instructions",
        exact=True,
        seconds=0.0,
        findings=list(codes.values()),
        pairings=[],
    )


def _counted(report: Report, counts: list[int]) -> Side:
    from agent.contract import statistics

    return _measured(report, len(counts), statistics.summary(counts)["p50"])
