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
@fleet_options
@json_option
def command(bundle: str, devices: tuple[str, ...], fleet: FleetOptions, *, as_json: bool) -> int:
    """Bring BUNDLE to DEVICES ([user@]host[:port], an ssh_config alias, a registered name, or `local`).

    Nothing is sent to a device that has it. The device verifies every byte before the bundle counts as there.
    """
    from agent.contract import codec
    from agent.contract.finding import Finding
    from packager.cli._fleet import Work, digest_of, errors_document, finish, on_each

    work = None
    if fleet.chosen:
        work = Work(fleet, ["push", digest_of(bundle)], _line, lambda result: result, as_json=as_json)
    with progress() as say:
        results, errors = on_each(devices, say, lambda device: device.push(bundle), fleet, work)
    if work:
        return finish(errors)
    if as_json:
        print_json({"pushed": results, "errors": errors_document(errors)})
    else:
        for result in results:
            click.echo(_line(result))
            show_findings([codec.decode(Finding, one) for one in result["findings"]])
    return finish(errors)


def _line(result: dict[str, Any]) -> str:
    what = "already there" if result["already_there"] else f"{mb(result['bytes_sent'])} sent"
    return f"{result['device']}: {result['name']} {result['bundle'][:19]}  {what}, {result['seconds']:.1f} s"
