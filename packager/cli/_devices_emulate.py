"""`devices emulate`, `devices stop`: ARM machines under qemu, for those who have no board at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from packager.cli import _complete
from packager.cli._show import json_option, print_json, progress, show_findings

if TYPE_CHECKING:
    from packager.emulate.machine import Machine
    from packager.profile import Profile


def commands() -> list[click.Command]:
    """The verbs that this file adds to `devices`."""
    return [emulate, stop]


@click.command()
@click.argument("profile", shell_complete=_complete.profiles)
@click.option("--name", help="The device's name [the profile's].")
@click.option("--count/--no-count", default=True, help="The machine's clock counts instructions: repeatable, one core.")
@click.option("--memory", default="", help='Another amount of memory than the profile\'s: "160 MiB".')
@click.option("--bare", is_flag=True, help="Without numpy and runtimes: a device that must be provisioned.")
@json_option
def emulate(profile: str, name: str | None, memory: str, *, count: bool, bare: bool, as_json: bool) -> None:
    """Start an aarch64 Debian machine with PROFILE's processor and memory, and register it as a device.

    Nothing of it is a board: with --count its durations are numbers of instructions, and every report says so.
    """
    from packager.emulate import tools
    from packager.emulate.image import BARE, ImageRecipe, ensure_image
    from packager.emulate.machine import create, machines, start
    from packager.profile import load_profile

    chosen = load_profile(profile)
    hardware = _hardware(chosen, memory, count=count)
    recipe, other = (BARE, ImageRecipe()) if bare else (ImageRecipe(), BARE)
    wanted = name or chosen.name
    _check_name(wanted)
    known = {machine.name: machine for machine in machines()}
    with progress() as say:
        tools.install_packages(tools.missing_packages(), say)
        # One made by an earlier edgepack, whose image has another key by now, is started again all the same.
        if wanted in known and _same(known[wanted], hardware) and known[wanted].state.image != other.key:
            machine, findings = start(wanted, progress=say), []
        else:
            image = ensure_image(recipe, progress=say)
            machine, findings = create(image, hardware, wanted, progress=say), list(image.findings)
    _register(machine, chosen)
    findings += machine.findings
    if as_json:
        print_json(_document(machine, findings))
        return
    seconds = machine.state.boot_seconds
    click.echo(f"{machine.name}: emulated {hardware.cpu}, up" + (f" in {seconds:.1f} s" if seconds else ""))
    show_findings(findings)


def _check_name(name: str) -> None:
    """Raises UsageError for a name that none may have, or of a device that is not emulated: its entry would be lost."""
    from agent.contract.errors import UsageError
    from packager.device import inventory
    from packager.emulate import machine

    inventory.check_name(name)
    machine.check_name(name)

    entry = inventory.everything().get(name)
    if entry is not None and entry.kind != inventory.EMULATED:
        raise UsageError(
            f"there is a device {name!r} already, and it is not an emulated one",
            where=entry.address,
            fix=f"choose another --name, or: edgepack devices remove {name}",
            code="exists",
        )


def _hardware(profile: Profile, memory: str, *, count: bool) -> Any:
    from agent.contract.errors import ConvertError
    from packager.emulate.qemu import CPUS, Hardware
    from packager.units import parse_bytes

    cpu = profile.cpu.model.lower().replace(" ", "-")
    if profile.cpu.arch != "aarch64" or cpu not in CPUS:
        raise ConvertError(
            f"the processor of {profile.name} ({profile.cpu.model}) cannot be emulated",
            expected=f"a profile with one of: {', '.join(CPUS)}",
            fix="raspberry-pi-3 (Cortex-A53), raspberry-pi-4 (Cortex-A72), raspberry-pi-5 (Cortex-A76)",
            code="no-emulation",
        )
    size = parse_bytes(memory, "--memory") if memory else min(profile.memory.ram_bytes, 1 << 30)
    return Hardware(cpu=cpu, cores=profile.cpu.cores, memory_bytes=size, count=count)


def _same(machine: Machine, hardware: Any) -> bool:
    return bool(machine.state.hardware == hardware)


def _register(machine: Machine, profile: Profile) -> None:
    from packager.device import inventory
    from packager.emulate.qemu import NS_PER_INSTRUCTION

    hardware = machine.state.hardware
    options = {
        "identity": str(machine.key_file),
        "known_hosts": str(machine.known_hosts_file),
        "cpu": hardware.cpu,
        "ns_per_instruction": NS_PER_INSTRUCTION if hardware.count else None,
    }
    entry = inventory.DeviceEntry(
        address=f"{machine.state.user}@127.0.0.1:{machine.state.port}",
        profile=profile.name,
        kind=inventory.EMULATED,
        options=options,
    )
    inventory.add(machine.name, entry, replace=True)


def _document(machine: Machine, findings: list[Any]) -> dict[str, Any]:
    from agent.contract import codec

    hardware = machine.state.hardware
    return {
        "device": machine.name,
        "cpu": hardware.cpu,
        "count": hardware.count,
        "memory_bytes": hardware.memory_bytes,
        "port": machine.state.port,
        "boot_seconds": machine.state.boot_seconds,
        "findings": codec.encode(findings),
    }


@click.command()
@click.argument("name", shell_complete=_complete.devices)
def stop(name: str) -> None:
    """Stop an emulated device; its disk stays, and `devices emulate` starts it again."""
    from packager.emulate import machine

    machine.stop(name)
    click.echo(f"{name}: stopped")
