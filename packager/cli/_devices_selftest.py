"""`devices selftest`: the whole road on a board, in one file to send back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from packager.cli import _complete
from packager.cli._show import json_option, print_json, progress, table


def commands() -> list[click.Command]:
    """The verbs that this file adds to `devices`."""
    return [selftest]


@click.command()
@click.argument("device", shell_complete=_complete.devices)
@click.option("--profile", default="", help="The board's profile [by its name].", shell_complete=_complete.profiles)
@click.option("--runtime", "runtimes", multiple=True, help="Only this runtime (repeatable) [all that DEVICE holds].")
@click.option("--seconds", type=click.FloatRange(0.01, 3600), default=1.0, show_default=True, help="Measured per case.")
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="The file to send back [selftest-DEVICE.json].")
@json_option
def selftest(
    device: str, profile: str, runtimes: tuple[str, ...], seconds: float, output: str | None, *, as_json: bool
) -> int:
    """Build, push, check and measure a small classifier on DEVICE, in every runtime it holds and every recipe.

    Writes one JSON file: what the board is, and what each step gave, errors included; no host name, no folder of yours.
    Exit code 4 when a case failed.
    """
    import json

    from agent.contract.errors import DeviceError, UsageError
    from packager import selftest as road
    from packager.device.device import Device

    place = Path(output or f"selftest-{device.replace('/', '-').replace(':', '-')}.json")
    if not place.absolute().parent.is_dir():
        raise UsageError("the folder of the output does not exist", where=str(place))
    with progress() as say, Device(device, progress=say) as connected:
        document = road.selftest(connected, profile=profile, runtimes=runtimes, seconds=seconds, progress=say)
    place.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    if as_json:
        print_json(document)
    else:
        rows = [[row["runtime"], row["recipe"], _said(row)] for row in document["runs"]]
        table(["runtime", "recipe", "result"], rows or [["-", "-", "the device holds no runtime of its profile"]])
        click.echo(f"{place}: please send it to the project; it names no host and no folder of yours")
    return 0 if document["passed"] else DeviceError.exit_code


def _said(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"failed: {row['error']['what']}"
    if "not_built" in row:
        return f"not built: {row['not_built']['what']}"
    parity = row["report"]["parity"]
    return f"ran, parity {parity['verdict'] if parity else 'not checked'}"
