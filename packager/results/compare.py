"""Two stored reports side by side, and when that would be a lie."""

from __future__ import annotations

import dataclasses
from statistics import median

from agent.contract import statistics
from agent.contract.errors import UsageError
from agent.contract.report import Report
from packager.results.document import samples_ns, unit_text

_CLOCKS_ALIKE = 1.05
_PROTOCOL = (
    "batch",
    "streams",
    "sustained_minutes",
    "seconds",
    "runs",
    "rounds",
    "warmup_seconds",
    "warmup_runs",
    "lock_clocks",
)


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
        ("the power mode", _mode(a), _mode(b)),
    )
    found += [f"{what}: {left} and {right}" for what, left, right in pairs if left != right]
    return found + _clocks(a, b) + _protocols(a, b)


def _clocks(a: Report, b: Report) -> list[str]:
    """The clocks while they were measured: medians of what the probes read, more than 5 % apart."""
    left, right = _clock(a), _clock(b)
    if left is None or right is None or max(left, right) <= _CLOCKS_ALIKE * min(left, right):
        return []
    return [f"the clock: {left:.0f} and {right:.0f} MHz"]


def _clock(report: Report) -> float | None:
    seen = [max(one.after.frequency_mhz) for one in report.rounds if one.after.frequency_mhz]
    return median(seen) if seen else None


def _protocols(a: Report, b: Report) -> list[str]:
    """What was asked for, where both reports tell it."""
    if a.protocol is None or b.protocol is None:
        return []
    pairs = [(name, getattr(a.protocol, name), getattr(b.protocol, name)) for name in _PROTOCOL]
    return [f"the protocol's {name}: {left} and {right}" for name, left, right in pairs if left != right]


def compare(a: Report, b: Report) -> Comparison:
    """B over A. Raises UsageError that names what differs when device, unit, runtime, clocks or protocol do not match."""
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


def _mode(report: Report) -> str:
    return str(report.rounds[0].before.power_mode) if report.rounds else ""


def _governor(report: Report) -> str:
    return str(report.rounds[0].before.governor) if report.rounds else ""
