"""The devices we know by name: one JSON file in the user's configuration folder, and what any device's text means."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import re
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract import codec
from agent.contract.errors import DeviceError, UsageError, nearest, unknown_name
from packager.device import fleet_file, ssh_config
from packager.device.local import LocalTransport
from packager.device.ssh import SshTransport

if TYPE_CHECKING:
    from collections.abc import Iterator

    from packager.device.transport import Interruptible

LOCAL = "local"
SSH, EMULATED, MCU, ADB = "ssh", "emulated", "mcu", "adb"
MCU_PREFIX = "qemu:"
ADB_PREFIX = "adb:"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclasses.dataclass(frozen=True)
class DeviceEntry:
    """A device and how to use it. `address` is "local" or an SSH address; `python` holds the runtime there; `root` is
    edgepack's folder there. `options` are for its kind: `identity` and `known_hosts` (paths), `jump` (an address to go
    through) for SSH; and `groups` and `labels`, by which a fleet is chosen.
    """

    address: str
    python: str = "python3"
    profile: str = ""
    kind: str = SSH
    name: str = ""
    root: str = "~/.edgepack"
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class _Document:
    devices: dict[str, DeviceEntry] = dataclasses.field(default_factory=dict)
    schema: str = "edgepack.devices/1"


def inventory_path() -> Path:
    """Where the registered devices are kept."""
    import platformdirs

    return platformdirs.user_config_path("edgepack") / "devices.json"


def check_name(name: str) -> None:
    """Raises UsageError, code "bad-name", for a name that no device may have."""
    if name == LOCAL or not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of a device",
            expected="letters, digits, dots, dashes and underscores, a letter or digit first, and not `local`",
            code="bad-name",
        )


def entries(path: Path | None = None) -> dict[str, DeviceEntry]:
    """All registered devices by name, sorted. Raises ContractError for a file that is not ours."""
    return dict(sorted(_read(path or inventory_path()).items()))


def everything(path: Path | None = None) -> dict[str, DeviceEntry]:
    """The registered devices and those of the fleet file. Raises UsageError, code "name-clash", for a name in both."""
    known = entries(path)
    for name, values in fleet_file.load().items():
        check_name(name)
        entry = DeviceEntry(name=name, **values)
        ssh_config.split_address(entry.address)
        if name in known:
            raise UsageError(
                f"there are two devices {name!r}",
                where=f"{known[name].address}, registered; {entry.address}, in {fleet_file.fleet_path()}",
                fix=f"edgepack devices remove {name}, or rename the one in the file",
                code="name-clash",
            )
        known[name] = entry
    return dict(sorted(known.items()))


def get(name: str, path: Path | None = None) -> DeviceEntry:
    """A registered device. Raises UsageError that names the nearest."""
    known = entries(path)
    if name not in known:
        raise unknown_name("device", name, known, fix="edgepack devices add NAME ADDRESS")
    return known[name]


def add(name: str, entry: DeviceEntry, path: Path | None = None, *, replace: bool = False) -> DeviceEntry:
    """Registers a device; gives the entry as it is kept. Raises UsageError: "bad-name", "bad-address", "exists"."""
    check_name(name)
    entry = dataclasses.replace(entry, name=name)
    if entry.kind in {SSH, EMULATED}:
        ssh_config.split_address(entry.address)
    file = path or inventory_path()
    with _locked(file):
        known = _read(file)
        if name in known and not replace:
            raise UsageError(
                f"there is a device {name!r} already",
                where=known[name].address,
                fix=f"edgepack devices remove {name}, or choose another name",
                code="exists",
            )
        _write(file, {**known, name: entry})
    return entry


def remove(name: str, path: Path | None = None) -> DeviceEntry:
    """Forgets a device; gives what it was. Raises UsageError that names the nearest."""
    file = path or inventory_path()
    with _locked(file):
        known = _read(file)
        if name not in known:
            raise unknown_name("device", name, known)
        entry = known.pop(name)
        _write(file, known)
    return entry


def resolve(text: str, path: Path | None = None) -> DeviceEntry:
    """The device that `text` means: `local`, a registered name, `qemu:BOARD`, `adb:SERIAL`, an ssh_config alias,
    `[user@]host[:port]`.

    Nothing is connected. Raises UsageError, code "bad-address".
    """
    if text == LOCAL:
        return DeviceEntry(address=LOCAL, python=sys.executable, kind=LOCAL, name=LOCAL)
    known = everything(path)
    if text in known:
        return known[text]
    if text.startswith(MCU_PREFIX):
        return DeviceEntry(address=text, kind=MCU, name=text)
    if text.startswith(ADB_PREFIX):
        return DeviceEntry(address=text, kind=ADB, name=text)
    ssh_config.split_address(text)
    return DeviceEntry(address=text, name=text)


def address_of(entry: DeviceEntry) -> ssh_config.Address:
    """The SSH server of an entry; its own identity and known_hosts count alone where it has them. Raises UsageError."""
    address = ssh_config.resolve(entry.address)
    identity, known_hosts = entry.options.get("identity"), entry.options.get("known_hosts")
    jump = entry.options.get("jump")
    if jump:
        hop = ssh_config.resolve(str(jump))
        address = dataclasses.replace(address, jumps=(*hop.jumps, dataclasses.replace(hop, jumps=())))
    if identity:
        address = dataclasses.replace(address, identities=(Path(str(identity)).expanduser(),), identities_only=True)
    if known_hosts:
        address = dataclasses.replace(address, known_hosts=(Path(str(known_hosts)).expanduser(),))
    return address


def open_transport(entry: DeviceEntry, path: Path | None = None) -> Interruptible:
    """The way to a device, connected. Raises DeviceError, TransientDeviceError, UsageError."""
    if entry.kind == MCU:
        raise DeviceError(
            "an emulated microcontroller holds no bundles and has no agent",
            where=entry.address,
            fix=f"edgepack bench BUNDLE {entry.address}",
            code="no-agent",
        )
    if entry.kind == ADB:
        raise DeviceError(
            "a phone over adb has no agent: it is only measured",
            where=entry.address,
            fix=f"edgepack bench BUNDLE {entry.address} --benchmark-model PATH; over SSH (Termux) the agent runs",
            code="no-agent",
        )
    if LOCAL in {entry.kind, entry.address}:
        return LocalTransport(python=entry.python)
    if entry.kind not in {SSH, EMULATED}:
        raise unknown_name("kind of device", entry.kind, (LOCAL, SSH, EMULATED))
    transport = SshTransport(address_of(entry), python=entry.python, name=entry.name)
    try:
        transport.connect()
    except DeviceError as error:
        near = nearest(entry.address, entries(path)) if error.code == "unknown-host" else None
        if near:
            error.fix = f"did you mean the device {near!r}? Otherwise {error.fix}"
        raise
    return transport


def _read(file: Path) -> dict[str, DeviceEntry]:
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UsageError(f"cannot read the registered devices: {error}", where=str(file)) from error
    return codec.loads(_Document, raw, source=str(file)).devices


def _write(file: Path, known: dict[str, DeviceEntry]) -> None:
    """Replaces the file in one step, on the disk when this returns."""
    part = file.with_name(f".{file.name}.{secrets.token_hex(4)}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
            out.write(codec.dumps(_Document(devices=known)))
            out.flush()
            os.fsync(out.fileno())
        part.replace(file)
    except OSError as error:
        raise UsageError(f"cannot write the registered devices: {error}", where=str(file)) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Nobody else changes the file meanwhile."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = file.with_suffix(".lock").open("w")
    except OSError as error:
        raise UsageError(f"cannot write the registered devices: {error}", where=str(file)) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
