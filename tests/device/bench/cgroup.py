"""Limits on memory and CPU for a device's processes, by control groups of version 1 or 2, where the system lets us."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
PERIOD_US = 100_000


def why_not():
    """Why limits cannot be set here, or ""."""
    try:
        Cgroup("edgepack-try", memory_bytes=64 << 20).remove()
    except OSError as error:
        return f"control groups cannot be made here: {error}"
    return ""


class Cgroup:
    """`join` is the shell command with which a process enters it; what it starts is then limited too."""

    def __init__(self, name, *, memory_bytes=None, cpus=None):
        self.folders = []
        unified = (ROOT / "cgroup.controllers").exists()
        settings = _unified(memory_bytes, cpus) if unified else _separate(memory_bytes, cpus)
        try:
            for controller, values in settings.items():
                folder = (ROOT if unified else ROOT / controller) / f"{name}-{os.getpid()}"
                folder.mkdir()
                self.folders.append(folder)
                for key, value in values:
                    (folder / key).write_text(str(value))
        except OSError:
            self.remove()
            raise

    @property
    def join(self):
        return "".join(f"echo $$ > {folder}/cgroup.procs; " for folder in self.folders)

    def remove(self):
        """Removes the groups once their last process is gone."""
        for folder in self.folders:
            for _ in range(100):
                with contextlib.suppress(OSError):
                    folder.rmdir()
                    break
                time.sleep(0.05)
        self.folders = []


def _separate(memory_bytes, cpus):
    settings = {}
    if memory_bytes:
        settings["memory"] = [("memory.limit_in_bytes", memory_bytes)]
    if cpus:
        settings["cpu"] = [("cpu.cfs_period_us", PERIOD_US), ("cpu.cfs_quota_us", int(cpus * PERIOD_US))]
    return settings


def _unified(memory_bytes, cpus):
    values = []
    if memory_bytes:
        values += [("memory.max", memory_bytes), ("memory.swap.max", 0)]
    if cpus:
        values += [("cpu.max", f"{int(cpus * PERIOD_US)} {PERIOD_US}")]
    return {"unified": values} if values else {}
