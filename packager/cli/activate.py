"""Make a bundle that is on a device the current one of a slot."""

from __future__ import annotations

import click

from packager.cli import _complete
from packager.cli._fleet import FleetOptions, fleet_options
from packager.cli._show import json_option


@click.command()
@click.argument("devices", nargs=-1, metavar="DEVICE...", shell_complete=_complete.devices)
@click.option("--slot", required=True, help="The name under which the application finds it.")
@click.option("--bundle", default="", help="Its digest, or the beginning of it [the one staged for the slot].")
@fleet_options
@json_option
def command(devices: tuple[str, ...], slot: str, bundle: str, fleet: FleetOptions, *, as_json: bool) -> int:
    """Check a bundle on each DEVICE (digests, needs, golden outputs) and make it the current one of a slot.

    A bundle that fails a check leaves the slot as it was.
    """
    from packager.cli import _switch
    from packager.cli._together import together

    return together(
        devices,
        fleet,
        ["activate", slot, bundle],
        lambda device: device.activate(slot, device.full_digest(bundle) if bundle else ""),
        _switch.show,
        _switch.line,
        as_json=as_json,
    )
