"""edgepack devices doctor for a fleet: a line for each device, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from packager.cli._fleet import FleetOptions, Work, finish, on_each
from packager.cli._show import progress

if TYPE_CHECKING:
    from agent.contract.facts import DoctorReport


def doctor_fleet(devices: Sequence[str], fleet: FleetOptions, *, as_json: bool) -> int:
    """Asks them all; exit code 4 when one cannot run bundles."""
    from agent.contract import codec
    from agent.contract.errors import DeviceError

    def line(result: tuple[str, DoctorReport]) -> str:
        address, report = result
        told = "; ".join(f"{one.level}: {one.message}" for one in report.findings) or "nothing is missing"
        return f"{address}: {report.facts.model}, {report.facts.os}: {told}"

    def document(result: tuple[str, DoctorReport]) -> dict[str, Any]:
        encoded: dict[str, Any] = codec.encode(result[1])
        return encoded

    work = Work(fleet, ["doctor", list(devices)], line, document, as_json=as_json)
    with progress() as say:
        results, errors = on_each(devices, say, lambda device: (device.address, device.doctor()), fleet, work)
    broken = any(finding.level == "error" for _, report in results for finding in report.findings)
    return finish(errors) or (DeviceError.exit_code if broken else 0)
