"""Two stored reports side by side, and when that would be a lie."""

from __future__ import annotations

import dataclasses

from agent.contract import statistics
from agent.contract.errors import UsageError
from agent.contract.report import Report
from packager.results.document import samples_ns, unit_text


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The ratios are B over A. The reports were not measured in turn: a small difference may be the moment's."""

    unit: str
    p50_ratio: float
    mean_ratio: float
    size_ratio: float


def differences(a: Report, b: Report) -> list[str]:
    """What makes the two measurements incomparable, in words; empty when nothing does."""
    found = []
    if unit_text(a) != unit_text(b):
        found.append(f"the unit: {unit_text(a)} and {unit_text(b)}")
    pairs = (
        ("the device", a.facts.hostname, b.facts.hostname),
        ("the processor", a.facts.cpu_model, b.facts.cpu_model),
        ("the runtime", f"{a.runtime.name} {a.runtime.version}", f"{b.runtime.name} {b.runtime.version}"),
        ("the provider", a.runtime.provider, b.runtime.provider),
        ("the threads", str(a.runtime.threads), str(b.runtime.threads)),
        ("the governor", _governor(a), _governor(b)),
    )
    return found + [f"{what}: {left} and {right}" for what, left, right in pairs if left != right]


def compare(a: Report, b: Report) -> Comparison:
    """B over A. Raises UsageError that names what differs when device, unit, runtime or clocks do not match."""
    found = differences(a, b)
    if found:
        raise UsageError(
            "these two reports cannot be compared: " + "; ".join(found),
            expected="the same device, runtime and settings",
            fix="measure both on one device with the same options",
            code="not-comparable",
        )
    left, right = statistics.summary(samples_ns(a)), statistics.summary(samples_ns(b))
    if not left["n"] or not right["n"]:
        raise UsageError("one of the reports holds no samples", code="not-comparable")
    return Comparison(
        unit=unit_text(a),
        p50_ratio=right["p50"] / left["p50"],
        mean_ratio=right["mean"] / left["mean"],
        size_ratio=b.model_bytes / a.model_bytes,
    )


def _governor(report: Report) -> str:
    return str(report.rounds[0].before.governor) if report.rounds else ""
