"""`devices provision`: numpy and runtimes for a device that has nothing but python3 and sshd."""

from __future__ import annotations

import click

from packager.cli import _complete
from packager.cli._show import json_option, mb, print_json, progress


def commands() -> list[click.Command]:
    """The verbs that this file adds to `devices`."""
    return [provision]


@click.command()
@click.argument("device", shell_complete=_complete.devices)
@click.option("--runtime", "runtimes", multiple=True, help="onnxruntime or tflite (repeatable) [onnxruntime].")
@json_option
def provision(device: str, runtimes: tuple[str, ...], *, as_json: bool) -> None:
    """Bring numpy and runtimes to DEVICE: resolved and downloaded here, unpacked in edgepack's own folder there."""
    from packager.device.device import Device
    from packager.device.provision import provision as bring

    with progress() as say, Device(device, progress=say) as connected:
        result = bring(connected, runtimes or ("onnxruntime",))
    if as_json:
        print_json(result)
        return
    click.echo(f"{device}: {mb(result['bytes_sent'])} sent, {', '.join(result['wheels'])}")
