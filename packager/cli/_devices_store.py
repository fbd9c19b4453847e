"""What is stored on a device: prune, check, quota."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from packager.cli import _complete
from packager.cli._fleet import FleetOptions, fleet_options
from packager.cli._show import json_option, mb, print_json, table

if TYPE_CHECKING:
    from packager.device.device import Device


def commands() -> list[click.Command]:
    """The verbs of this file."""
    return [prune, check, quota]


@click.command()
@click.argument("devices", nargs=-1, metavar="DEVICE...", shell_complete=_complete.devices)
@click.option("--keep", type=click.IntRange(0), required=True, help="So many that no slot holds stay: those used last.")
@fleet_options
@json_option
def prune(devices: tuple[str, ...], keep: int, fleet: FleetOptions, *, as_json: bool) -> int:
    """Delete the bundles on each DEVICE that no slot holds, but for the last used."""
    from packager.cli._together import together

    def line(told: dict[str, Any]) -> str:
        return f"{told['device']}: {len(told['removed'])} removed, {mb(told['freed_bytes'])} freed"

    def show(told: dict[str, Any]) -> None:
        click.echo(line(told))

    return together(devices, fleet, ["prune", keep], lambda device: device.prune(keep), show, line, as_json=as_json)


@click.command()
@click.argument("devices", nargs=-1, metavar="DEVICE...", shell_complete=_complete.devices)
@click.option("--slot", default="", help="Only what this slot holds.")
@fleet_options
@json_option
def check(devices: tuple[str, ...], slot: str, fleet: FleetOptions, *, as_json: bool) -> int:
    """Check all that is stored on each DEVICE: digests, signatures, needs, golden outputs.

    The exit code is 0 only when everything is whole.
    """
    from packager.cli._together import together

    def call(device: Device) -> dict[str, Any]:
        done = device.verify(slot)
        return {"whole": not _errors(done), **done}

    return together(devices, fleet, ["check", slot], call, _show_check, _check_line, code=_check_code, as_json=as_json)


def _errors(told: dict[str, Any]) -> list[dict[str, Any]]:
    return [row["error"] for row in (*told["bundles"], *told["problems"]) if row["error"] is not None]


def _check_code(told: dict[str, Any]) -> int:
    return max((int(one["exit_code"]) for one in _errors(told)), default=0)


def _check_line(told: dict[str, Any]) -> str:
    faults = "; ".join(str(one["what"]) for one in _errors(told))
    return f"{told['device']}: {len(told['bundles'])} bundles, {faults or 'all whole'}"


def _show_check(told: dict[str, Any]) -> None:
    rows = [[row["slot"], "", "", row["error"]["what"]] for row in told["problems"]]
    for row in told["bundles"]:
        said = row["error"]["what"] if row["error"] else ", ".join(row["checks"]) + " passed"
        rows.append([row["bundle"][:19], row["name"], ", ".join(row["slots"]), said])
    table(["bundle", "name", "slots", "checks"], rows)


@click.command()
@click.argument("device", shell_complete=_complete.devices)
@click.argument("size", required=False)
@json_option
def quota(device: str, size: str | None, *, as_json: bool) -> None:
    """Show or set what edgepack's folder on DEVICE may hold: SIZE in MB, or `none`."""
    from agent.contract.errors import UsageError
    from packager.device.device import Device

    limit: dict[str, int | None] = {}
    if size is not None:
        if size != "none" and not size.isdecimal():
            raise UsageError(f"not a size: {size!r}", expected="a number of MB, or none")
        limit["set"] = None if size == "none" else int(size) * 1_000_000
    with Device(device) as connected:
        done = connected.quota(**limit)
    if as_json:
        print_json({"device": device, **done})
    else:
        of = "no quota" if done["quota_bytes"] is None else f"of {mb(done['quota_bytes'])}"
        click.echo(f"{device}: {mb(done['used_bytes'])} used, {of}")
