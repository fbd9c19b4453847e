"""edgepack devices trust, lock, unlock: whose bundles run on a device, and who has it just now."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from packager.cli import _complete
from packager.cli._show import json_option, print_json
from packager.cli._signers import signer_options


def commands() -> list[click.Command]:
    """The verbs of this file."""
    return [trust, lock, unlock]


@click.command()
@click.argument("device", shell_complete=_complete.devices)
@signer_options
@click.option("--signed-only/--unsigned-too", default=None, help="Run only what an allowed signer signed.")
@json_option
def trust(
    device: str, allowed_signers: Path | None, revoked: Path | None, signed_only: bool | None, *, as_json: bool
) -> None:
    """Show whose bundles may run on DEVICE, or set it: the files replace those that were there, in one step.

    To rotate: allow the old and the new key, sign with the new, then allow the new one alone. To revoke: --revoked.
    """
    import base64

    from agent.contract import codec
    from packager.bundle.sign import load_trust
    from packager.device import vouching
    from packager.device.device import Device

    with Device(device) as connected:
        now, told = vouching.show(connected)
        new = now
        if allowed_signers is not None:
            new = dataclasses.replace(new, allowed_signers=load_trust(allowed_signers).allowed_signers)
        if revoked is not None:
            new = dataclasses.replace(new, revoked=load_trust(revoked, revoked).revoked)
        if signed_only is not None:
            new = dataclasses.replace(new, signed_only=signed_only)
        if new != now:
            now, told = vouching.set_trust(connected, new)
    if as_json:
        print_json({"device": device, **codec.encode(now), "ssh_keygen": str(told.get("ssh_keygen", ""))})
        return
    signers = [line for line in now.allowed_signers.splitlines() if line.strip() and not line.startswith("#")]
    click.echo(f"{device}: runs {'signed bundles only' if now.signed_only else 'unsigned bundles, too'}")
    click.echo(f"{len(signers)} allowed signers" + "".join(f"\n  {line.split(None, 1)[0]}" for line in signers))
    click.echo(f"{len(base64.b64decode(now.revoked))} bytes of revoked keys")
    problem = str(told.get("problem", ""))
    click.echo(f"verified with {told.get('ssh_keygen')}" if not problem else f"cannot verify: {problem}")


@click.command()
@click.argument("device", shell_complete=_complete.devices)
@click.option("--minutes", type=click.FloatRange(0.1, 1440), default=60.0, show_default=True, help="How long.")
@click.option("--owner", default="", help="In whose name [you].")
@json_option
def lock(device: str, minutes: float, owner: str, *, as_json: bool) -> None:
    """Have DEVICE for yourself: others' measurements wait until it is unlocked, or the time is over."""
    from packager.device import audit
    from packager.device.device import Device

    with Device(device) as connected:
        told = connected.session.call("lease", {"owner": owner or audit.who(), "seconds": minutes * 60})
    _show(device, told, as_json=as_json)


@click.command()
@click.argument("device", shell_complete=_complete.devices)
@click.option("--owner", default="", help="In whose name [you].")
@click.option("--force", is_flag=True, help="Take it away from whoever has it.")
@json_option
def unlock(device: str, owner: str, *, force: bool, as_json: bool) -> None:
    """Give DEVICE back to the others."""
    from packager.device import audit
    from packager.device.device import Device

    with Device(device) as connected:
        arguments = {"owner": owner or audit.who(), "release": True, "force": force}
        told = connected.session.call("lease", arguments)
    _show(device, told, as_json=as_json)


def _show(device: str, told: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        print_json({"device": device, "lease": told.get("lease"), "queue": told.get("queue")})
        return
    have, queue = told.get("lease"), told.get("queue")
    if isinstance(have, dict):
        click.echo(f"{device}: {have.get('owner')} has it for {float(have.get('seconds_left', 0)) / 60:.0f} min more")
    else:
        click.echo(f"{device}: nobody has it")
    if isinstance(queue, list) and queue:
        click.echo(
            "measuring or waiting: " + ", ".join(str(one.get("owner")) for one in queue if isinstance(one, dict))
        )
