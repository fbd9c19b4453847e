"""Make a bundle that is on a device the current one of a slot."""

from __future__ import annotations

import click

from packager.cli import _complete, _switch
from packager.cli._show import json_option, progress


@click.command()
@click.argument("device", shell_complete=_complete.devices)
@click.option("--slot", required=True, help="The name under which the application finds it.")
@click.option("--bundle", default="", help="Its digest, or the beginning of it [the one staged for the slot].")
@json_option
def command(device: str, slot: str, bundle: str, *, as_json: bool) -> None:
    """Check a bundle on DEVICE (digests, needs, golden outputs) and make it the current one of a slot.

    A bundle that fails a check leaves the slot as it was.
    """
    from packager.device.device import Device

    with progress() as say, Device(device, progress=say) as connected:
        done = connected.activate(slot, connected.full_digest(bundle) if bundle else "")
    _switch.show(device, done, as_json=as_json)
