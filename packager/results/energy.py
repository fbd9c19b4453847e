"""Energy per inference out of a report's power readings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.contract.report import Report


def per_inference(report: Report) -> dict[str, Any] | None:
    """Millijoules per inference of all rounds together: what the rail drew, and that without the idle board's share.

    Milliwatts times seconds are millijoules. None where no rail was read.
    """
    found = [one.energy for one in report.rounds if one.energy is not None]
    inferences = sum(one.inferences for one in found)
    if not inferences:
        return None
    spent = sum(_mean(one.power_mw) * one.seconds for one in found)
    resting = sum(_mean(one.idle_mw) * one.seconds for one in found)
    seconds = sum(one.seconds for one in found)
    return {
        "rail": found[0].rail,
        "mj_per_inference": spent / inferences,
        "mj_per_inference_above_idle": (spent - resting) / inferences,
        "power_mw": spent / seconds,
        "idle_mw": resting / seconds,
        "inferences": inferences,
        "seconds": seconds,
    }


def told(report: Report) -> str:
    """One line for people; empty where no rail was read."""
    found = per_inference(report)
    if found is None:
        return ""
    return (
        f"{found['mj_per_inference']:.2f} mJ per inference ({found['mj_per_inference_above_idle']:.2f} above idle), by"
        f" {found['rail']}: {found['power_mw'] / 1e3:.2f} W running, {found['idle_mw'] / 1e3:.2f} W idle"
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
