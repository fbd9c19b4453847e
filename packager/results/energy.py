"""Energy per inference out of what the rails drew in a report's rounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.contract.report import Report

_WATT = 1e3  # milliwatts


def per_inference(report: Report) -> dict[str, Any] | None:
    """Millijoules for one sample by rail, of all rounds together: what the rail drew, and that without the idle board's share.

    Null for reports that never asked; where no rail could be read `unread` says why.
    """
    found = [one.energy for one in report.rounds if one.energy is not None]
    if not found:
        return None
    batch = (report.protocol.batch if report.protocol else 0) or 1
    count = sum(one.inferences for one in found) * batch
    seconds = sum(one.seconds for one in found)
    rails = {}
    for name in found[0].joules if count else ():
        joules = sum(one.joules.get(name, 0.0) for one in found)
        resting = sum(one.idle_mw.get(name, 0.0) / _WATT * one.seconds for one in found)
        rails[name] = {
            "mj_per_inference": 1e3 * joules / count,
            "mj_per_inference_above_idle": 1e3 * (joules - resting) / count,
            "power_mw": _WATT * joules / seconds,
            "idle_mw": _WATT * resting / seconds,
        }
    return {"rails": rails, "inferences": count, "seconds": seconds, "unread": found[0].unread}


def told(report: Report) -> str:
    """One line for people; empty where no rail was read."""
    found = per_inference(report) or {"rails": {}}
    return "; ".join(
        f"{name}: {rail['mj_per_inference']:.3g} mJ per inference ({rail['mj_per_inference_above_idle']:.3g} above idle),"
        f" {rail['power_mw'] / _WATT:.2f} W running, {rail['idle_mw'] / _WATT:.2f} W idle"
        for name, rail in found["rails"].items()
    )
