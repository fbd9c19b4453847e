"""Return a slot on a device to its previous bundle."""

from __future__ import annotations

import click

from packager.cli import _complete
from packager.cli._fleet import FleetOptions, fleet_options
from packager.cli._show import json_option


@click.command()
@click.argument("devices", nargs=-1, metavar="DEVICE...", shell_complete=_complete.devices)
@click.option("--slot", required=True, help="The slot.")
@click.option("--leaving", default="", metavar="DIGEST", help="Only where the slot runs this bundle (all its digits).")
@fleet_options
@json_option
def command(devices: tuple[str, ...], slot: str, leaving: str, fleet: FleetOptions, *, as_json: bool) -> int:
    """Return a slot on each DEVICE to its previous bundle, which is checked as any other.

    A second rollback is refused: there is no previous bundle then. With --leaving it may be asked twice, and leaves devices
    alone that run another one.
    """
    from packager.cli import _switch
    from packager.cli._together import together

    return together(
        devices,
        fleet,
        ["rollback", slot, leaving],
        lambda device: device.rollback(slot, leaving),
        _switch.show,
        _switch.line,
        as_json=as_json,
    )
