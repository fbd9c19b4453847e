"""Return a slot on a device to its previous bundle."""

from __future__ import annotations

import click

from packager.cli import _complete, _switch
from packager.cli._show import json_option, progress


@click.command()
@click.argument("device", shell_complete=_complete.devices)
@click.option("--slot", required=True, help="The slot.")
@json_option
def command(device: str, slot: str, *, as_json: bool) -> None:
    """Return a slot on DEVICE to its previous bundle, which is checked as any other."""
    from packager.device.device import Device

    with progress() as say, Device(device, progress=say) as connected:
        done = connected.rollback(slot)
    _switch.show(device, done, as_json=as_json)
