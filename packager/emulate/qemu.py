"""The command line of qemu for one machine, and what its refusals mean."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

from agent.contract.errors import DeviceError, EdgepackError, TransientDeviceError, unknown_name
from packager.emulate.tools import run

if TYPE_CHECKING:
    from pathlib import Path

# `max` is left out: it boots three times slower, and under qemu-user it even computed wrong INT8 results.
CPUS = ("cortex-a53", "cortex-a72", "cortex-a76", "neoverse-n1")
DOT_PRODUCT_CPUS = ("cortex-a76", "neoverse-n1")
COUNT_SHIFT = 1
NS_PER_INSTRUCTION = 1 << COUNT_SHIFT  # in deterministic mode the guest's clock advances by this for each instruction
_MIB = 1 << 20
_MAX_CORES = 8  # of the "virt" machine with its default interrupt controller
MIN_MEMORY = 96 * _MIB


@dataclasses.dataclass(frozen=True)
class Hardware:
    """The machine as it is asked for. With `count` its clock counts instructions, which needs a single core."""

    cpu: str
    cores: int = 1
    memory_bytes: int = 1 << 30
    count: bool = True


def check_hardware(hardware: Hardware) -> None:
    """Raises UsageError for a CPU that we do not emulate, DeviceError for sizes that cannot be."""
    if hardware.cpu not in CPUS:
        raise unknown_name("CPU to emulate", hardware.cpu, CPUS)
    if hardware.memory_bytes < MIN_MEMORY or not 1 <= hardware.cores <= _MAX_CORES:
        raise DeviceError(
            f"a machine with {hardware.cores} cores and {hardware.memory_bytes // _MIB} MiB cannot be emulated",
            expected=f"1 to {_MAX_CORES} cores and at least {MIN_MEMORY // _MIB} MiB",
            code="bad-hardware",
        )


def command(hardware: Hardware, folder: Path, kernel: Path, initrd: Path, disk: Path, port: int) -> list[str]:
    """The arguments of qemu. The machine reaches nothing; only `port` on loopback leads into it, to its sshd."""
    count = hardware.count
    argv = ["qemu-system-aarch64", "-M", "virt", "-cpu", hardware.cpu, "-smp", str(1 if count else hardware.cores)]
    argv += [
        "-m",
        f"{hardware.memory_bytes // _MIB}M",
        "-accel",
        f"tcg,thread={'single' if count else 'multi'}",
    ]
    if count:
        # sleep=on: while the machine idles its clock follows real time. With sleep=off it would jump to the next timer: the
        # counts of busy code are the same, but every timeout inside fires at once, and idling takes a whole core of the host.
        argv += ["-icount", f"shift={COUNT_SHIFT},sleep=on"]
    argv += ["-kernel", str(kernel), "-initrd", str(initrd)]
    argv += ["-append", f"console=ttyAMA0 quiet loglevel=4 panic=-1 edgepack.epoch={int(time.time())}"]
    argv += ["-drive", f"if=none,file={_escaped(disk)},format=raw,id=d", "-device", "virtio-blk-pci,drive=d"]
    argv += ["-netdev", f"user,id=n,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"]
    argv += ["-device", "virtio-net-pci,netdev=n,romfile=", "-device", "virtio-rng-pci"]
    argv += ["-display", "none", "-serial", "file:{}".format(_escaped(folder / "console.log")), "-monitor", "none"]
    # -daemonize: qemu checks everything (the port too) before it lets go, and then is nobody's child.
    return [*argv, "-no-reboot", "-daemonize", "-pidfile", str(folder / "pid")]


def launch(argv: list[str], port: int, folder: Path) -> int:
    """Starts qemu and returns its process number. Raises TransientDeviceError for a taken port, else DeviceError."""
    pid_file = folder / "pid"
    pid_file.unlink(missing_ok=True)
    try:
        run(argv, what="starting the machine", deadline=60.0)
    except EdgepackError as error:
        if "host forwarding rule" not in error.expected:
            raise
        raise TransientDeviceError(
            f"port {port} of this host is taken",
            where=f"127.0.0.1:{port}",
            expected="a free port",
            fix="name another port, or none: a free one is then chosen",
            code="port-taken",
        ) from error
    return int(pid_file.read_text())


def _escaped(path: Path) -> str:
    return str(path).replace(",", ",,")  # in qemu's options a comma begins the next one
