"""Debian's arm64 kernel, and an initrd of busybox and just the modules that reach the disk and the network."""

from __future__ import annotations

import dataclasses
import io
import re
import shutil
import stat
from typing import TYPE_CHECKING

from agent.contract.errors import DeviceError
from packager.emulate.rootfs import SETTINGS, extract_deb

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

# crc32c: ext4 asks for it by name at mount time, so no dependency is written in the module.
_WANTED = ("virtio_pci", "virtio_blk", "virtio_net", "virtio_rng", "ext4", "crc32c_generic")
# Most of the package, and nothing of it is in an emulated machine.
_LEFT_OUT = (
    "sound",
    "drivers/gpu",
    "drivers/media",
    "drivers/net/ethernet",
    "drivers/net/wireless",
    "drivers/staging",
    "drivers/usb",
    "drivers/scsi",
    "drivers/iio",
    "drivers/infiniband",
    "net/netfilter",
)
_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")
MACHINE_FOLDER = "machine"  # what each machine adds to the first file system: keys and host name

_INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
for m in %(modules)s; do insmod /lib/modules/$m.ko || echo "no module $m"; done
for word in $(cat /proc/cmdline); do case $word in edgepack.epoch=*) date -s "@${word#*=}" > /dev/null;; esac; done
i=0; while [ ! -b /dev/vda ] && [ $i -lt 100 ]; do sleep 0.05; i=$((i+1)); done
mount -t ext4 -o rw,noatime /dev/vda /mnt || { echo 'the disk cannot be mounted'; poweroff -f; }
ip link set lo up; ip addr add 10.0.2.15/24 dev eth0; ip link set eth0 up; ip route add default via 10.0.2.2
mount --move /proc /mnt/proc; mount --move /sys /mnt/sys; mount --move /dev /mnt/dev
mkdir -p /mnt/dev/pts /mnt/dev/shm; mount -t devpts devpts /mnt/dev/pts; mount -t tmpfs shm /mnt/dev/shm
mount -t tmpfs run /mnt/run; mkdir -p /mnt/run/sshd
for f in host_key authorized_keys; do cp /%(machine)s/$f /mnt%(settings)s/$f; done
chmod 600 /mnt%(settings)s/host_key; chmod 644 /mnt%(settings)s/authorized_keys
cp /%(machine)s/hostname /mnt/etc/hostname; hostname "$(cat /%(machine)s/hostname)"
exec switch_root /mnt /usr/sbin/edge-init
"""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A file (or, without data, a folder) of a cpio archive, owned by root."""

    name: str
    data: bytes | None = None
    mode: int = 0o644


def cpio(entries: Iterable[Entry]) -> bytes:
    """The entries as a "newc" archive, which the kernel unpacks; such archives may be joined end to end."""
    out = io.BytesIO()
    for number, entry in enumerate([*entries, Entry("TRAILER!!!", b"", 0)], 1):
        name, data = entry.name.encode() + b"\0", entry.data or b""
        mode = stat.S_IFDIR | 0o755 if entry.data is None else stat.S_IFREG | entry.mode
        links = 2 if entry.data is None else 1
        fields = (number, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(name), 0)
        out.write(b"070701" + b"".join(b"%08x" % field for field in fields) + name)
        out.write(b"\0" * (-out.tell() % 4) + data)
        out.write(b"\0" * (-out.tell() % 4))
    return out.getvalue()


def module_order(modules: dict[str, Path], wanted: Iterable[str]) -> list[str]:
    """The wanted modules with all they need, each after its own needs. Raises DeviceError for one that is not there."""
    order: list[str] = []

    def visit(name: str) -> None:
        if name in order:
            return
        if name not in modules:
            raise DeviceError(f"the kernel has no module {name}", expected="Debian's arm64 kernel", code="no-module")
        found = _DEPENDS.search(modules[name].read_bytes())
        for needed in found.group(1).decode().split(",") if found else []:
            if needed:
                visit(needed.replace("-", "_"))
        order.append(name)

    for name in wanted:
        visit(name)
    return order


def make_kernel(deb: Path, busybox: Path, workdir: Path, kernel: Path, initrd: Path) -> None:
    """Writes the kernel and its initrd out of the kernel's package. Raises DeviceError for a missing part."""
    extract_deb(deb, workdir, [f"--exclude=*/kernel/{name}" for name in _LEFT_OUT])
    images = sorted((workdir / "boot").glob("vmlinuz-*"))
    if len(images) != 1:
        raise DeviceError(f"{deb.name} holds {len(images)} kernels", expected="one", code="no-kernel")
    shutil.copy(images[0], kernel)
    # From trixie on modules are compressed (.ko.xz), which the kernel's insmod would have to be told.
    modules = {path.stem.replace("-", "_"): path for path in workdir.rglob("*.ko")}
    order = module_order(modules, _WANTED)
    init = _INIT % {"modules": " ".join(order), "machine": MACHINE_FOLDER, "settings": SETTINGS}
    entries = [Entry(name) for name in ("bin", "proc", "sys", "dev", "mnt", "lib", "lib/modules", MACHINE_FOLDER)]
    entries += [Entry(f"lib/modules/{name}.ko", modules[name].read_bytes()) for name in order]
    entries += [Entry("bin/busybox", busybox.read_bytes(), 0o755), Entry("init", init.encode(), 0o755)]
    initrd.write_bytes(cpio(entries))  # not compressed: unpacking would cost the guest more than reading costs the host
