"""Reports as documents: raw samples kept, statistics derived here, when they are read."""

from __future__ import annotations

import dataclasses
from typing import Any

from agent.contract import codec, statistics
from agent.contract.errors import BudgetError
from agent.contract.report import Report, Round
from packager.results import details, energy

_NS_PER_MS = 1e6


def samples_ns(report: Report) -> list[int]:
    """All timed inferences, round after round."""
    return [sample for one in report.rounds for sample in one.samples_ns]


def latency(report: Report) -> dict[str, Any]:
    """n, mean, std, min, max and percentiles in milliseconds, throughput per second, and the raw samples."""
    samples = samples_ns(report)
    numbers = statistics.summary(samples)
    if counts_instructions(report):
        return _instructions(report, samples)
    found: dict[str, Any] = {"n": numbers.pop("n"), "unit": "ms"}
    for key, value in numbers.items():
        found[f"{key}_ms"] = None if value is None else value / _NS_PER_MS
    found["throughput_per_s"] = details.throughput(report)
    found["samples_ns"] = samples
    return found


def counts_instructions(report: Report) -> bool:
    """Whether the report's durations are numbers of instructions of an emulated machine."""
    return report.emulation is not None and report.emulation.ns_per_instruction is not None


def unit_text(report: Report) -> str:
    """What the numbers are, in words: never milliseconds where they are instructions."""
    if report.emulation is None:
        return "ms"
    if counts_instructions(report):
        return f"instructions, emulated {report.emulation.cpu}"
    return f"ms of the emulator, emulated {report.emulation.cpu}"


def _counted(report: Report, value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _counted(report, part) for name, part in value.items()}
    return instructions(report, value) if isinstance(value, list) else instructions(report, [value])[0]


def instructions(report: Report, values: list[int]) -> list[int]:
    """Durations of an emulated machine as numbers of instructions."""
    step = (report.emulation.ns_per_instruction if report.emulation else None) or 1.0
    return [round(value / step) for value in values]


def _instructions(report: Report, samples: list[int]) -> dict[str, Any]:
    counts = instructions(report, samples)
    numbers = statistics.summary(counts)
    found: dict[str, Any] = {"n": numbers.pop("n"), "unit": "instructions", "label": unit_text(report)}
    found |= {f"{key}_instructions": value for key, value in numbers.items()}
    found["samples_instructions"] = counts
    return found


def duration(report: Report, values: list[int]) -> dict[str, float | None]:
    """The median of durations under its unit: {"ms": ...} or {"instructions": ...}."""
    median = statistics.summary(values)["p50"]
    if median is None:
        return {"ms": None}
    if counts_instructions(report):
        return {"instructions": instructions(report, [round(median)])[0]}
    return {"ms": median / _NS_PER_MS}


def peak_memory(report: Report) -> int | None:
    """The most that any round's process held, in bytes."""
    return max((one.peak_memory_bytes for one in report.rounds if one.peak_memory_bytes is not None), default=None)


def memory_above_interpreter(report: Report) -> int | None:
    """The same, less what a bare interpreter holds."""
    shares = [
        one.peak_memory_bytes - one.baseline_memory_bytes
        for one in report.rounds
        if one.peak_memory_bytes is not None and one.baseline_memory_bytes is not None
    ]
    return max(shares, default=None)


def report_document(report: Report, device: str, run: int | None = None) -> dict[str, Any]:
    """What `bench --json` and `results show --json` print of one report."""
    document: dict[str, Any] = {} if run is None else {"run": run}
    document |= {
        "device": device,
        "bundle": report.bundle,
        "name": report.name,
        "target": report.target,
        "recipe": report.recipe,
        "latency": latency(report),
        **{f"load_{unit}": value for unit, value in duration(report, [one.load_ns for one in report.rounds]).items()},
        **{
            f"first_inference_{unit}": value
            for unit, value in duration(report, [one.first_ns for one in report.rounds]).items()
        },
        "peak_memory_bytes": peak_memory(report),
        "memory_above_interpreter_bytes": memory_above_interpreter(report),
        "sizes": {
            "model_bytes": report.model_bytes,
            "bundle_bytes": report.bundle_bytes,
            "source_bytes": report.source_bytes,
        },
        "parity": codec.encode(report.parity),
        "accuracy": codec.encode(report.accuracy),
        "runtime": codec.encode(report.runtime),
        "protocol": codec.encode(report.protocol),
        "sustained": details.sustained_document(report),
        "energy": energy.per_inference(report),
        "profile": details.profile_document(report),
        "emulation": codec.encode(report.emulation),
        "findings": codec.encode(report.findings),
        "device_facts": codec.encode(report.facts),
        "rounds": [_round_document(report, one) for one in report.rounds],
        "started_unix": report.started_unix,
        "schema": report.schema,
    }
    return document


def require_parity(report: Report) -> None:
    """Raises BudgetError when the device does not compute what the original computes."""
    if report.parity is not None and report.parity.verdict != "pass":
        bad = [output.name for output in report.parity.outputs if output.verdict != "pass"]
        raise BudgetError(
            f"the golden check failed on the device: {', '.join(bad)}",
            where=f"{report.name} ({report.bundle[:19]})",
            expected="the original's outputs, within the bundle's tolerance",
            fix="see the parity column; try another recipe or real calibration data",
            code="parity",
        )


def _round_document(report: Report, one: Round) -> dict[str, Any]:
    document: dict[str, Any] = codec.encode(dataclasses.replace(one, samples_ns=[]))
    del document["samples_ns"], document["windows"]  # told as "sustained"
    document["n"] = len(one.samples_ns)
    del document["begun_ns"]  # of the device's own clock
    if counts_instructions(report):
        del document["tick_ns"], document["wall_ns"]
        for key in [key for key in document if key.endswith("_ns")]:
            document[key.removesuffix("ns") + "instructions"] = _counted(report, document.pop(key))
    return document
