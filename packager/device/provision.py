"""Brings a device with nothing but python3 and sshd what it needs: numpy and runtimes, in edgepack's own folder there."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract import archive
from agent.contract.errors import DeviceError, unknown_name
from packager import wheels
from packager.artifact import digest_files
from packager.device.runtime_packages import BY_HAND, PACKAGES

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
        _check(name)
    facts = device.doctor().facts
    packages = list(dict.fromkeys(package for name in runtimes for package in PACKAGES[name]))
    glibc = facts.libc.removeprefix("glibc-") if facts.libc.startswith("glibc-") else ""
    with tempfile.TemporaryDirectory(prefix="edgepack-wheels-") as scratch:
        device.progress(f"downloading {', '.join(packages)} for {facts.machine}, Python {facts.python}, glibc {glibc}")
        found = wheels.download(Path(scratch), packages, facts.machine, facts.python, glibc)
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


def _check(name: str) -> None:
    """Raises UsageError for a runtime that nobody knows, and DeviceError for one that must be installed by hand."""
    if name in BY_HAND:
        why, fix = BY_HAND[name]
        raise DeviceError(f"{name} cannot be brought to a device: {why}", fix=fix, code="by-hand")
    if name not in PACKAGES:
        raise unknown_name("runtime to provision", name, PACKAGES)
