"""Emulated machines: each a folder with its own disk, keys and console, and a qemu that outlives who started it."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import socket
import time
from typing import TYPE_CHECKING, Optional

from agent.contract import codec
from agent.contract.errors import DeviceError, TransientDeviceError, UsageError, unknown_name
from agent.contract.finding import INFO, WARNING, Finding
from packager.emulate import qemu
from packager.emulate.image import DISK, INITRD, KERNEL, Image
from packager.emulate.kernel import MACHINE_FOLDER, Entry, cpio
from packager.emulate.process import ProcessIdentity, end, identify, is_alive
from packager.emulate.rootfs import USER
from packager.emulate.tools import Progress, need_packages, quiet, run

if TYPE_CHECKING:
    from pathlib import Path


STATE = "state.json"
_NAME = re.compile(r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")  # it becomes the machine's host name
_CHUNK = 1 << 20
_CONSOLE_LINES = 15
_PORT_TRIES = 5
_LISTENING = "Server listening on 0.0.0.0"


@dataclasses.dataclass(frozen=True)
class MachineState:
    """`state.json`. `process` is null while the machine is stopped; `port` is the one it had last."""

    name: str
    hardware: qemu.Hardware
    image: str
    port: int
    host_key: str  # "ssh-ed25519 AAAA..."
    user: str = USER
    process: Optional[ProcessIdentity] = None  # noqa: UP045 - the codec reads typing's own forms
    boot_seconds: Optional[float] = None  # noqa: UP045 - as above
    schema: str = "edgepack.machine/1"


@dataclasses.dataclass(frozen=True)
class Machine:
    """An emulated machine, running or not."""

    folder: Path
    state: MachineState
    findings: tuple[Finding, ...] = ()

    @property
    def name(self) -> str:
        """Its name here, and its host name."""
        return self.state.name

    @property
    def running(self) -> bool:
        """Whether its process is alive at this moment."""
        return self.state.process is not None and is_alive(self.state.process, str(self.folder))

    @property
    def key_file(self) -> Path:
        """The private key that opens it."""
        return self.folder / "id_ed25519"

    @property
    def known_hosts_line(self) -> str:
        """Its host key as a line for known_hosts."""
        return f"[127.0.0.1]:{self.state.port} {self.state.host_key}"

    @property
    def known_hosts_file(self) -> Path:
        """A known_hosts file that holds just its line."""
        return self.folder / "known_hosts"

    def console(self, lines: int = _CONSOLE_LINES) -> str:
        """The last lines of its console."""
        try:
            text = (self.folder / "console.log").read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def ssh_command(self, user: str = "") -> list[str]:
        """OpenSSH's client with all it needs to reach the machine; the remote command is still to be added."""
        options = ["IdentitiesOnly=yes", "BatchMode=yes", "StrictHostKeyChecking=yes"]
        options += [f'UserKnownHostsFile="{self.known_hosts_file}"', "GlobalKnownHostsFile=none", "ConnectTimeout=20"]
        argv = ["ssh", "-F", "none", "-p", str(self.state.port), "-i", str(self.key_file)]
        argv += [part for option in options for part in ("-o", option)]
        return [*argv, f"{user or self.state.user}@127.0.0.1"]


def machines_home() -> Path:
    """Where machines are kept."""
    from platformdirs import user_data_path

    return user_data_path("edgepack") / "machines"


def machines(home: Path | None = None) -> list[Machine]:
    """All machines, by name. Raises ContractError that names the file when a state cannot be read."""
    return [_read(path.parent) for path in sorted((home or machines_home()).glob("*/" + STATE))]


def find(name: str, home: Path | None = None) -> Machine:
    """The machine of that name. Raises UsageError that lists those there are."""
    home = home or machines_home()
    if _NAME.match(name) and (home / name / STATE).exists():
        return _read(home / name)
    names = [path.parent.name for path in home.glob("*/" + STATE)]
    raise unknown_name("emulated device", name, names, fix="make one: edgepack devices emulate PROFILE --name NAME")


def check_name(name: str) -> None:
    """Raises UsageError for a name that no machine may have."""
    if not _NAME.match(name):
        raise UsageError(
            f"{name!r} cannot name an emulated device",
            expected="lower-case letters, digits and '-', 32 at most: it becomes a host name",
            code="bad-name",
        )


def create(
    image: Image,
    hardware: qemu.Hardware,
    name: str,
    *,
    port: int | None = None,
    home: Path | None = None,
    limit: float = 180.0,
    progress: Progress = quiet,
) -> Machine:
    """A new machine, started; returns once its sshd answers, `limit` seconds at most.

    Raises UsageError for a bad name or CPU, DeviceError when a machine of that name exists, when qemu is missing or
    refuses, or when the machine does not come up (with its console's last lines); nothing of it then remains.
    """
    need_packages(building=False)
    qemu.check_hardware(hardware)
    check_name(name)
    folder = (home or machines_home()) / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir(mode=0o700)  # holds private keys; also the one step that two commands cannot both take
    except FileExistsError as error:
        raise DeviceError(
            f"there is already an emulated device {name!r}",
            where=str(folder),
            expected="a name of its own",
            fix=f"choose another --name, or: edgepack devices remove {name}",
            code="name-taken",
        ) from error
    try:
        progress("copying the disk")
        host_key = _furnish(image, folder, name)
        state = MachineState(name, hardware, image.description.key, 0, host_key)
        return _boot(Machine(folder, state), port, limit, progress)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def start(
    name: str, *, port: int | None = None, home: Path | None = None, limit: float = 180.0, progress: Progress = quiet
) -> Machine:
    """Starts a stopped machine again, with the disk it had; one that runs is returned as it is.

    Raises UsageError for an unknown name, DeviceError when it does not come up (its disk stays).
    """
    need_packages(building=False)
    machine = find(name, home)
    return machine if machine.running else _boot(machine, port, limit, progress)


def stop(name: str, *, home: Path | None = None, power_cut: bool = False) -> Machine:
    """Stops a machine, its disk written out first; with `power_cut` as if the plug were pulled.

    Raises UsageError for an unknown name, DeviceError when it cannot be ended.
    """
    machine = find(name, home)
    process = machine.state.process
    findings: tuple[Finding, ...] = ()
    if process is not None and machine.running:
        if not power_cut:
            try:
                run([*machine.ssh_command("root"), "sync"], what="writing out the disk", deadline=30.0)
            except DeviceError as error:  # a machine that hangs is stopped all the same
                message = f"{name} was stopped without writing out its disk: {error.what}"
                findings = (Finding("not-synced", WARNING, message, "what was written last may be lost"),)
        end(process, str(machine.folder), kill=power_cut)
    machine = _write(machine, dataclasses.replace(machine.state, process=None))
    return dataclasses.replace(machine, findings=findings)


def remove(name: str, *, home: Path | None = None) -> None:
    """Stops a machine and deletes its disk and keys. Raises UsageError for an unknown name."""
    machine = find(name, home)
    if machine.state.process is not None:
        end(machine.state.process, str(machine.folder), kill=True)
    (machine.folder / STATE).unlink()  # from here on it is no machine, whatever happens to the rest
    shutil.rmtree(machine.folder)


def _furnish(image: Image, folder: Path, name: str) -> str:
    """Disk, kernel, initrd and fresh keys in the machine's folder; returns the public host key."""
    _copy_sparse(image.folder / DISK, folder / DISK)
    shutil.copy(image.folder / KERNEL, folder / KERNEL)
    for key in ("host_key", "id_ed25519"):
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "edgepack " + name, "-f", str(folder / key)]
        run(argv, what="making keys")
    own = [
        Entry(MACHINE_FOLDER),
        Entry(MACHINE_FOLDER + "/host_key", (folder / "host_key").read_bytes(), 0o600),
        Entry(MACHINE_FOLDER + "/authorized_keys", (folder / "id_ed25519.pub").read_bytes()),
        Entry(MACHINE_FOLDER + "/hostname", name.encode() + b"\n"),
    ]
    # The kernel unpacks archives one after the other, so the machine's own part is simply added.
    (folder / INITRD).write_bytes((image.folder / INITRD).read_bytes() + cpio(own))
    return " ".join((folder / "host_key.pub").read_text().split()[:2])


def _boot(machine: Machine, port: int | None, limit: float, progress: Progress) -> Machine:
    folder, hardware = machine.folder, machine.state.hardware
    (folder / "console.log").unlink(missing_ok=True)
    started = time.monotonic()
    for attempt in range(_PORT_TRIES):
        # The machine keeps its port over a restart if it can: its known_hosts line then stays true.
        chosen = port or (machine.state.port if attempt == 0 else 0) or _free_port()
        argv = qemu.command(hardware, folder, folder / KERNEL, folder / INITRD, folder / DISK, chosen)
        try:
            pid = qemu.launch(argv, chosen, folder)
            break
        except TransientDeviceError:
            if port or attempt == _PORT_TRIES - 1:
                raise
    process = identify(pid)
    if process is None:
        raise _not_up(machine, "its process ended at once")
    try:
        machine = _write(machine, dataclasses.replace(machine.state, port=chosen, process=process))
        progress(f"waiting for {machine.name} to boot")
        _await_banner(machine, started + limit)
        seconds = round(time.monotonic() - started, 2)
        machine = _write(machine, dataclasses.replace(machine.state, boot_seconds=seconds))
    except BaseException:
        end(process, str(folder), kill=True)
        if (folder / STATE).exists():
            _write(machine, dataclasses.replace(machine.state, process=None))
        raise
    return dataclasses.replace(machine, findings=tuple(_doubts(hardware)))


def _doubts(hardware: qemu.Hardware) -> list[Finding]:
    if not hardware.count:
        message = "this machine's times depend on the host's load: they say nothing about a board"
        return [Finding("emulated-time", INFO, message, "use --count to count instructions instead")]
    message = f"its clock counts instructions ({qemu.NS_PER_INSTRUCTION} ns for each): not a board's latency"
    findings = [Finding("counts-instructions", INFO, message)]
    if hardware.cores > 1:
        message = f"counting instructions needs one core: {hardware.cores} were asked for, 1 is used"
        findings.append(Finding("one-core", INFO, message, "use --no-count for more cores"))
    return findings


def _await_banner(machine: Machine, deadline: float) -> None:
    """Waits until sshd says on the console that it listens, then for its greeting.

    Not by knocking from the start: qemu's forwarded port accepts at once and keeps what it accepted, and all those connections
    would then reach the machine later, in the middle of a measurement.
    """
    while machine.running:
        if time.monotonic() > deadline:
            raise _not_up(machine, "its sshd did not answer in time")
        if _LISTENING in machine.console(lines=1000) and _greets(machine.state.port):
            return
        time.sleep(0.1)
    raise _not_up(machine, "its process ended")


def _greets(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 2) as link:
            link.settimeout(20)
            return link.recv(4) == b"SSH-"
    except OSError:  # refused, reset, or silent: not up yet
        return False


def _not_up(machine: Machine, why: str) -> DeviceError:
    return DeviceError(
        f"the emulated device {machine.name} does not come up: {why}",
        where=str(machine.folder),
        expected=f"an sshd that answers; its console ends with:\n{machine.console() or '(nothing)'}",
        fix="give it more memory or time, or build its image again",
        code="no-boot",
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _copy_sparse(source: Path, target: Path) -> None:
    """A copy whose runs of zeros take no space."""
    zeros = bytes(_CHUNK)
    with source.open("rb") as reader, target.open("xb") as writer:
        while chunk := reader.read(_CHUNK):
            if chunk == zeros[: len(chunk)]:
                writer.seek(len(chunk), os.SEEK_CUR)
            else:
                writer.write(chunk)
        writer.truncate(source.stat().st_size)


def _write(machine: Machine, state: MachineState) -> Machine:
    part = machine.folder / (STATE + ".part")
    part.write_text(codec.dumps(state), encoding="utf-8")
    part.replace(machine.folder / STATE)
    machine = dataclasses.replace(machine, state=state)
    machine.known_hosts_file.write_text(machine.known_hosts_line + "\n", encoding="utf-8")
    return machine


def _read(folder: Path) -> Machine:
    path = folder / STATE
    try:
        return Machine(folder, codec.loads(MachineState, path.read_bytes(), source=str(path)))
    except OSError as error:
        raise DeviceError(f"the state of the emulated device cannot be read: {error}", where=str(path)) from error
