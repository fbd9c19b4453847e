"""Bring a bundle to devices."""

from __future__ import annotations

from typing import Any

import click

from packager.cli import _complete
from packager.cli._fleet import FleetOptions, fleet_options
from packager.cli._show import json_option, mb, print_json, progress, show_findings


@click.command()
@click.argument("bundle")
@click.argument("devices", nargs=-1, shell_complete=_complete.devices)
@click.option("--slot", default="", help="Check the bundle on the device and make it this slot's current one.")
@click.option("--no-activate", is_flag=True, help="Only bring it; `edgepack activate` comes later.")
@click.option("--dry-run", is_flag=True, help="Say what would travel, and change nothing but for the agent.")
@click.option("--repair", is_flag=True, help="Read all that the device has of it, and send what is damaged.")
@fleet_options
@json_option
def command(
    bundle: str,
    devices: tuple[str, ...],
    fleet: FleetOptions,
    *,
    slot: str,
    no_activate: bool,
    dry_run: bool,
    repair: bool,
    as_json: bool,
) -> int:
    """Bring BUNDLE to DEVICES ([user@]host[:port], an ssh_config alias, a registered name, or `local`).

    Only what is missing travels, and a transfer that was cut goes on where it stopped. The device verifies every byte
    before the bundle counts as there. With --slot it is activated when its digests, its needs and its golden outputs are
    right on that device; else the old bundle stays.
    """
    from packager.cli._fleet import Work, digest_of, errors_document, finish, on_each
    from packager.device.push import PushOptions

    options = PushOptions(slot=slot, activate=not no_activate, dry_run=dry_run, repair=repair)
    work = None
    if fleet.chosen:
        key = ["push", digest_of(bundle), slot, no_activate, dry_run, repair]
        work = Work(fleet, key, _line, lambda result: result, as_json=as_json)
    with progress() as say:
        results, errors = on_each(devices, say, lambda device: device.push(bundle, options), fleet, work)
    if work:
        return finish(errors)
    if as_json:
        print_json({"pushed": results, "errors": errors_document(errors)})
    else:
        for result in results:
            _show(result)
    return finish(errors)


def _line(result: dict[str, Any]) -> str:
    what = f"{'would send' if result['dry_run'] else 'sent'} {mb(result['bytes_sent'])}"
    if result["bytes_already_there"]:
        what += f", {mb(result['bytes_already_there'])} already there"
    if result["already_there"]:
        what = "already there"
    return f"{result['device']}: {result['name']} {result['bundle'][:19]}  {what}, {result['seconds']:.1f} s"


def _show(result: dict[str, Any]) -> None:
    from agent.contract import codec
    from agent.contract.finding import Finding

    click.echo(_line(result))
    for row in result["would_send"]:
        click.echo(f"    {row['file']}: {mb(row['bytes'])} of {mb(row['size'])}")
    if result["activated"] is not None:
        done = result["activated"]
        click.echo(f"    active in slot {result['slot']} ({', '.join(done['checks'])} passed): {done['path']}")
    show_findings([codec.decode(Finding, one) for one in result["findings"]])
