"""What a bundle needs of this device, checked before anything of it runs."""

from __future__ import annotations

import re
import sys
from typing import Tuple

from agent import remedy
from agent.contract.errors import DeviceError
from agent.contract.manifest import Manifest
from agent.probes import cpu, reading


def check_cpu(manifest: Manifest) -> None:
    """Raises DeviceError when the processor lacks an instruction set extension that the bundle needs."""
    have = set(cpu.features())
    missing = [name for name in manifest.runtime.cpu_features if name not in have]
    if missing:
        raise DeviceError(
            "the bundle needs CPU features that this device lacks: %s" % ", ".join(missing),
            where="%s has: %s" % (cpu.model(), ", ".join(sorted(have)) or "none that edgepack knows"),
            expected="a device like the profile %r" % manifest.target,
            fix="build for this device: edgepack build MODEL --target PROFILE (edgepack profiles list)",
            code="cpu-features",
        )


def check_runtime(manifest: Manifest) -> None:
    """Raises DeviceError when the runtime or numpy is missing or the version is outside the bundle's range."""
    from importlib import import_module

    need = manifest.runtime
    if need.name not in reading.runner_names():
        fix = "update edgepack"
        if need.name == "tflite_micro":
            fix = "it is C for a microcontroller: edgepack unpack, and build its sources; edgepack bench BUNDLE qemu:cortex-m4"
        raise DeviceError("this agent cannot run %r bundles" % need.name, fix=fix, code="no-runner")
    module = import_module("agent.runners." + need.name)
    if reading.distribution_version(["numpy"]) is None:
        raise DeviceError(
            "numpy is not installed for the device's interpreter",
            where=sys.executable,
            fix=remedy.runner(module, "numpy"),
            code="no-numpy",
        )
    found = reading.installed(need.name).version
    wanted = ">= %s" % need.min_version + (", < %s" % need.below_version if need.below_version else "")
    if found is None:
        raise DeviceError(
            "%s is not installed for the device's interpreter" % need.name,
            expected="%s %s" % (need.name, wanted),
            where=sys.executable,
            fix=remedy.runner(module),
            code="no-runtime",
        )
    if release(found) < release(need.min_version) or (
        need.below_version and release(found) >= release(need.below_version)
    ):
        raise DeviceError(
            "%s %s is on the device" % (need.name, found),
            expected=wanted,
            fix="install a version in that range there, or build for a profile that names %s %s" % (need.name, found),
            code="runtime-version",
        )


def release(version: str) -> Tuple[int, ...]:
    """The numbers of a version's release part: "1.20.0rc1" gives (1, 20, 0)."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else (0,)
