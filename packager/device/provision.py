"""Brings a device with nothing but python3 and sshd what it needs: numpy and runtimes, in edgepack's own folder there."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract import archive
from agent.contract.errors import unknown_name
from packager import wheels
from packager.artifact import digest_files
from packager.device.runtime_packages import PACKAGES, WITHOUT_DEPENDENCIES, check_device

if TYPE_CHECKING:
    from agent.contract.errors import EdgepackError
    from packager.device.device import Device


def missing_runtime(error: EdgepackError, bundle: str | Path) -> str | None:
    """The runtime that `provision` would bring to cure `error`; None when it is another error, or has no wheels."""
    if error.code not in ("no-runtime", "no-numpy"):
        return None
    with archive.BundleReader(bundle) as reader:
        name = reader.manifest.runtime.name
    return name if name in PACKAGES else None


def provision(device: Device, runtimes: Sequence[str] = ("onnxruntime",)) -> dict[str, Any]:
    """Resolves and downloads here, pushes, unpacks there. No root, no pip and no network on the device.

    Returns the device, the wheels' names, the bytes sent and the folder. Raises DeviceError where no wheels exist,
    UsageError for an unknown runtime.
    """
    for name in runtimes:
        if name not in PACKAGES:
            raise unknown_name("runtime to provision", name, PACKAGES)
    facts = device.doctor().facts
    for name in runtimes:
        check_device(name, facts)
    glibc = facts.libc.removeprefix("glibc-") if facts.libc.startswith("glibc-") else ""
    with tempfile.TemporaryDirectory(prefix="edgepack-wheels-") as scratch:
        for packages, whole in _requests(runtimes):
            wanted = ", ".join(packages)
            device.progress(f"downloading {wanted} for {facts.machine}, Python {facts.python}, glibc {glibc}")
            wheels.download(Path(scratch), packages, facts.machine, facts.python, glibc, dependencies=whole)
        found = sorted(Path(scratch).glob("*.whl"))
        total = sum(path.stat().st_size for path in found)
        sent: list[dict[str, str]] = []
        root = facts.root
        for path in found:
            device.progress(f"sending {path.name} ({path.stat().st_size / 1e6:.1f} MB)")
            device.session.transport.put(path, f"{root}/incoming/{path.name}")
            sent.append({"file": path.name, "sha256": digest_files([path])})
        key = hashlib.sha256("".join(sorted(one["sha256"] for one in sent)).encode()).hexdigest()[:32]
        done = device.session.call("provision", {"key": key, "wheels": sent}, device.progress)
    return {
        "device": device.address,
        "wheels": [path.name for path in found],
        "bytes_sent": total,
        "folder": done["folder"],
    }


def _requests(runtimes: Sequence[str]) -> list[tuple[list[str], bool]]:
    """What is asked of pip: packages, and whether with all they depend on. One request where that can be."""
    asked = []
    for whole in (True, False):
        chosen = [name for name in runtimes if (name not in WITHOUT_DEPENDENCIES) is whole]
        packages = list(dict.fromkeys(package for name in chosen for package in PACKAGES[name]))
        if packages:
            asked.append((packages, whole))
    return asked
