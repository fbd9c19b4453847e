"""All probes at one moment, and the facts of the device."""

from __future__ import annotations

import importlib
import os
import pkgutil
import platform
import shutil
import socket
import sys
import time
from typing import Any, Dict, List, Optional

import agent.probes
import agent.runners
from agent.contract.facts import DeviceFacts, RuntimeFacts
from agent.contract.report import ProbeReading
from agent.probes import cpu, memory
from agent.probes.files import read_text

_HELPERS = {"files", "reading"}


def take(root: str = "/") -> ProbeReading:
    """What every probe of this folder reads now; values that cannot be read are null with a reason."""
    values: Dict[str, Any] = {}
    unread: Dict[str, str] = {}
    for module in pkgutil.iter_modules(agent.probes.__path__):
        if module.name in _HELPERS:
            continue
        told = importlib.import_module("agent.probes." + module.name).read(root)
        unread.update(told.pop("unread"))
        # Where two probes know the same thing, what could be read counts, and a warning before an all-clear.
        values.update({key: value for key, value in told.items() if value or (value is not None and key not in values)})
    return ProbeReading(unread={name: why for name, why in unread.items() if name not in values}, **values)


def facts(root_folder: str, root: str = "/") -> DeviceFacts:
    """The device as it tells itself. Runtimes are read from their package metadata, not imported."""
    unread: Dict[str, str] = {}
    try:
        disk: Optional[int] = shutil.disk_usage(_existing(root_folder)).free
    except OSError as error:
        disk, unread["disk_free"] = None, str(error)
    free = memory.read(root)
    unread.update(free["unread"])
    total = memory.total(root)
    if total is None:
        unread["memory_total"] = "/proc/meminfo has no MemTotal"
    cpu_model = cpu.model(root)
    return DeviceFacts(
        hostname=socket.gethostname(),
        model=read_text(root, "/proc/device-tree/model") or cpu_model,
        machine=platform.machine(),
        kernel=platform.release(),
        os=_os_name(root),
        python=platform.python_version(),
        python_path=sys.executable,
        libc="-".join(platform.libc_ver()),
        numpy=distribution_version(["numpy"]),
        runtimes=[installed(name) for name in runner_names()],
        cpu_model=cpu_model,
        cpu_cores=cpu.cores(),
        cpu_features=cpu.features(root),
        memory_total=total,
        memory_available=free["memory_available"],
        disk_free=disk,
        root=root_folder,
        clock_unix=time.time(),
        unread=unread,
    )


def runner_names() -> List[str]:
    """The runtimes this agent can drive: the files of `agent/runners`."""
    return sorted(
        module.name for module in pkgutil.iter_modules(agent.runners.__path__) if not module.name.startswith("_")
    )


def installed(name: str) -> RuntimeFacts:
    """The runtime's version in this interpreter, by its package metadata."""
    module = importlib.import_module("agent.runners." + name)
    # A runtime that comes with the system and not from a package index knows where to look.
    find = getattr(module, "installed_version", None)
    return RuntimeFacts(name=name, version=find() if find else distribution_version(module.DISTRIBUTIONS))


def distribution_version(names: List[str]) -> Optional[str]:
    """The version of the first of these packages that is installed, or None."""
    from importlib import metadata

    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def _existing(path: str) -> str:
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


def _os_name(root: str) -> str:
    for line in (read_text(root, "/etc/os-release") or "").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip().strip('"')
    return platform.system()
