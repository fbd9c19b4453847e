"""The devices that bundles go to."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import click

from packager.cli import _complete
from packager.cli._fleet import FleetOptions, fleet_options
from packager.cli._show import json_option, mb, print_json, progress, show_findings, table


@click.group()
def command() -> None:
    """The devices that bundles go to."""


@command.command()
@click.argument("name")
@click.argument("address")
@click.option("--python", default="python3", show_default=True, help="The interpreter there that holds the runtime.")
@click.option("--root", default="~/.edgepack", show_default=True, help="edgepack's folder there.")
@click.option("--profile", default="", help="The device's profile.", shell_complete=_complete.profiles)
@click.option(
    "--trust-on-first-use", is_flag=True, help="Show the host key's fingerprint and ask whether to accept it."
)
@click.option("--replace", is_flag=True, help="Replace a device of this name.")
def add(
    name: str, address: str, python: str, root: str, profile: str, *, trust_on_first_use: bool, replace: bool
) -> None:
    """Register a device: NAME for ADDRESS ([user@]host[:port] or an ssh_config alias)."""
    from packager.device import inventory
    from packager.profile import load_profile

    if profile:
        load_profile(profile)
    entry = inventory.DeviceEntry(address=address, python=python, root=root, profile=profile)
    if trust_on_first_use:
        inventory.check_name(name)
        _trust(entry)
    inventory.add(name, entry, replace=replace)
    click.echo(f"{name}: {address}")


def _trust(entry: Any) -> None:
    from packager.device import inventory, ssh_connect

    def accept(hop: Any, key: Any) -> bool:
        click.echo(f"{hop.host}:{hop.port} shows the {key.kind} host key\n  {key.fingerprint}", err=True)
        return click.confirm("Is that the device's own? Accept it", err=True)

    ssh_connect.trust_on_first_use(inventory.address_of(entry), accept)


@command.command("list")
@json_option
def list_(*, as_json: bool) -> None:
    """The registered devices."""
    from agent.contract import codec
    from packager.device import inventory

    entries = inventory.everything()
    if as_json:
        print_json([{**codec.encode(entry), "name": name} for name, entry in entries.items()])
        return
    rows = [[name, entry.kind, entry.address, entry.python, entry.profile] for name, entry in entries.items()]
    table(["device", "kind", "address", "python", "profile"], [["local", "local", "this machine", "", ""], *rows])


@command.command()
@click.argument("name", shell_complete=_complete.devices)
def remove(name: str) -> None:
    """Forget a registered device. On a real one nothing is touched; an emulated one is deleted, with its disk."""
    from packager.device import inventory
    from packager.emulate import machine

    entry = inventory.get(name)
    if entry.kind == inventory.EMULATED and name in [one.name for one in machine.machines()]:
        machine.remove(name)
    inventory.remove(name)
    click.echo(f"{name}: {'deleted' if entry.kind == inventory.EMULATED else 'forgotten'} ({entry.address})")


@command.command()
@click.argument("device", required=False, shell_complete=_complete.devices)
@fleet_options
@json_option
def doctor(device: str | None, fleet: FleetOptions, *, as_json: bool) -> int:
    """What DEVICE is and lacks, with the exact fix; exit code 4 when it cannot run bundles."""
    from agent.contract import codec
    from agent.contract.errors import DeviceError
    from packager.device.device import Device

    if fleet.chosen or device is None:
        from packager.cli._fleet_doctor import doctor_fleet

        return doctor_fleet([device] if device else [], fleet, as_json=as_json)
    with progress() as say, Device(device, progress=say) as connected:
        report = connected.doctor()
    broken = any(finding.level == "error" for finding in report.findings)
    if as_json:
        print_json(codec.encode(report))
        return DeviceError.exit_code if broken else 0
    facts = report.facts
    runtimes = ", ".join(f"{one.name} {one.version or 'missing'}" for one in facts.runtimes)
    rows = [
        ["device", f"{facts.model} ({facts.hostname}, {facts.machine})"],
        ["system", f"{facts.os}, Linux {facts.kernel}, {facts.libc}"],
        ["cpu", f"{facts.cpu_cores} x {facts.cpu_model}: {', '.join(facts.cpu_features)}"],
        ["memory", f"{mb(facts.memory_available)} available of {mb(facts.memory_total)}"],
        ["disk", f"{mb(facts.disk_free)} free at {facts.root}"],
        ["python", f"{facts.python} at {facts.python_path}, numpy {facts.numpy or 'missing'}"],
        ["runtimes", runtimes],
    ]
    rows += [
        ["interpreter", f"{one['path']} {one['version']}: {one['has'] or one.get('error') or 'no runtime'}"]
        for one in report.interpreters
    ]
    table(["", ""], rows)
    show_findings(report.findings)
    if not report.findings:
        click.echo("nothing is missing")
    return DeviceError.exit_code if broken else 0


@command.command("list-bundles")
@click.argument("device", shell_complete=_complete.devices)
@json_option
def list_bundles(device: str, *, as_json: bool) -> None:
    """The bundles on DEVICE."""
    from packager.device.device import Device

    with Device(device) as connected:
        rows = connected.bundles()
    if as_json:
        print_json(rows)
        return
    table(
        ["bundle", "name", "target", "runtime", "size", "slots"],
        [
            [
                r["digest"][:19],
                r.get("name", r.get("error", "")),
                r.get("target", ""),
                r.get("runtime", ""),
                mb(r.get("size_bytes")),
                ", ".join(r.get("slots", [])),
            ]
            for r in rows
        ],
        right=[4],
    )


@command.command("remove-bundle")
@click.argument("device", shell_complete=_complete.devices)
@click.argument("digest")
@json_option
def remove_bundle(device: str, digest: str, *, as_json: bool) -> None:
    """Delete a bundle from DEVICE: DIGEST is its sha256:... or the beginning of it."""
    from packager.device.device import Device

    with Device(device) as connected:
        found = connected.full_digest(digest)
        freed = connected.remove(found)
    if as_json:
        print_json({"digest": found, "freed_bytes": freed})
    else:
        click.echo(f"{device}: {found[:19]} removed, {mb(freed)} freed")


def _more_verbs() -> None:
    """Further verbs of this group come from `packager.cli._devices_*`: a file each."""
    package = importlib.import_module("packager.cli")
    for module in pkgutil.iter_modules(package.__path__):
        if module.name.startswith("_devices_"):
            for made in importlib.import_module(f"packager.cli.{module.name}").commands():
                command.add_command(made)


_more_verbs()
