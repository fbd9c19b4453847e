"""What is stored on a device: prune, check, quota."""

from __future__ import annotations

import click

from packager.cli import _complete
from packager.cli._show import json_option, mb, print_json, progress, table


def commands() -> list[click.Command]:
    """The verbs of this file."""
    return [prune, check, quota]


@click.command()
@click.argument("device", shell_complete=_complete.devices)
@click.option("--keep", type=click.IntRange(0), required=True, help="So many that no slot holds stay: those used last.")
@json_option
def prune(device: str, keep: int, *, as_json: bool) -> None:
    """Delete the bundles on DEVICE that no slot holds, but for the last used."""
    from packager.device.device import Device

    with Device(device) as connected:
        done = connected.prune(keep)
    if as_json:
        print_json({"device": device, **done})
    else:
        click.echo(f"{device}: {len(done['removed'])} removed, {mb(done['freed_bytes'])} freed")


@click.command()
@click.argument("device", shell_complete=_complete.devices)
@click.option("--slot", default="", help="Only what this slot holds.")
@json_option
def check(device: str, slot: str, *, as_json: bool) -> int:
    """Check all that is stored on DEVICE: digests, needs, golden outputs; exit code 0 only when everything is whole."""
    from packager.device.device import Device

    with progress() as say, Device(device, progress=say) as connected:
        done = connected.verify(slot)
    errors = [row["error"] for row in (*done["bundles"], *done["problems"]) if row["error"] is not None]
    if as_json:
        print_json({"device": device, "whole": not errors, **done})
    else:
        rows = [[row["slot"], "", "", row["error"]["what"]] for row in done["problems"]]
        for row in done["bundles"]:
            said = row["error"]["what"] if row["error"] else ", ".join(row["checks"]) + " passed"
            rows.append([row["bundle"][:19], row["name"], ", ".join(row["slots"]), said])
        table(["bundle", "name", "slots", "checks"], rows)
    return max((int(one["exit_code"]) for one in errors), default=0)


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
        click.echo(f"{device}: {mb(done['used_bytes'])} used of {mb(done['quota_bytes'])}")
