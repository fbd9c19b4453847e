"""A comparison as JSON, as JUnit XML for a CI server, and as Markdown for a pull request."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from agent.contract import codec
from packager.compare.gate import FAILED, UNDECIDED

if TYPE_CHECKING:
    from packager.compare.gate import GateResult
    from packager.compare.run import Comparison, Side


def document(found: Comparison, gates: list[GateResult], *, samples: bool = True) -> dict[str, Any]:
    """What `compare --json` prints; with `samples`, every round with its raw samples."""
    judged = found.judgement
    made: dict[str, Any] = {
        "verdict": judged.verdict,
        "ratio": dataclasses.asdict(judged.ratio),
        "p95_ratio": dataclasses.asdict(judged.p95_ratio) if judged.p95_ratio else None,
        "rounds": judged.rounds,
        "more_rounds": judged.more_rounds,
        "confidence": judged.level,
        "margin": judged.margin,
        "exact": found.exact,
        "device": found.device,
        "unit": found.unit,
        "a": _side(found.a, found.unit),
        "b": _side(found.b, found.unit),
        "seconds": found.seconds,
        "gates": [dataclasses.asdict(one) for one in gates],
        "findings": codec.encode(found.findings),
    }
    if samples:
        made["pairings"] = [codec.encode(pairing) for pairing in found.pairings]
    return made


def _side(side: Side, unit: str) -> dict[str, Any]:
    told: dict[str, Any] = codec.encode(side)
    told[f"p50_{unit}"] = told.pop("p50")
    return told


def sentence(found: Comparison) -> str:
    """The verdict in one line."""
    judged = found.judgement
    text = f"{judged.verdict}: B takes {judged.ratio.estimate:.3f} times A's time"
    text += f" ({judged.ratio.low:.3f} to {judged.ratio.high:.3f}; margin {judged.margin:.0%}, {judged.rounds} rounds)"
    if judged.verdict == "inconclusive" and not found.exact:
        more = judged.more_rounds
        text += f"; about {more} more rounds would decide" if more else "; too close to the margin to be decided"
    return text


def junit(found: Comparison, gates: list[GateResult]) -> str:
    """A test suite with a case for each gate; an undecided one is `skipped`, with its reason."""
    from xml.etree import ElementTree as ET

    failures = sum(one.outcome == FAILED for one in gates)
    skipped = sum(one.outcome == UNDECIDED for one in gates)
    numbers = {"tests": str(len(gates)), "failures": str(failures), "errors": "0", "skipped": str(skipped)}
    suite = ET.Element("testsuite", {"name": "edgepack compare", "time": f"{found.seconds:.1f}", **numbers})
    for one in gates:
        case = ET.SubElement(suite, "testcase", {"classname": f"edgepack.{found.device}", "name": one.gate})
        if one.outcome in (FAILED, UNDECIDED):
            ET.SubElement(case, "failure" if one.outcome == FAILED else "skipped", {"message": one.message})
    ET.SubElement(suite, "system-out").text = sentence(found)
    return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def markdown(found: Comparison, gates: list[GateResult]) -> str:
    """A comment for a pull request."""
    lines = [f"**{found.judgement.verdict}** on {_plain(found.device)}: {sentence(found).partition(': ')[2]}", ""]
    lines += [f"| | model | p50 {found.unit} | size, bytes | parity |", "|---|---|---|---|---|"]
    for name, side in (("A", found.a), ("B", found.b)):
        parity = side.parity.verdict if side.parity else "not checked"
        p50 = f"{side.p50:.3f}" if found.unit == "ms" else f"{side.p50:.0f}"
        lines.append(f"| {name} | {_plain(side.name)} {_plain(side.recipe)} | {p50} | {side.model_bytes} | {parity} |")
    if gates:
        lines += ["", "| gate | outcome | |", "|---|---|---|"]
        lines += [f"| {one.gate} | {one.outcome} | {one.message} |" for one in gates]
    if found.findings:
        lines += ["", *(f"* {one.level}: {_plain(one.message)}" for one in found.findings)]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Text of a device or a bundle, which may hold anything, without meaning in Markdown."""
    flat = " ".join(text.split())
    return "".join(f"\\{char}" if char in "\\`*_[]<>|#!" else char for char in flat)
