"""A process that outlives us, known by its number and the moment it began, so that no other is ever signalled."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from pathlib import Path

from agent.contract.errors import DeviceError

_STARTTIME = 21  # its place in /proc/PID/stat, counted from 0: proc(5), field 22


@dataclasses.dataclass(frozen=True)
class ProcessIdentity:
    """`started` is in clock ticks since boot, `boot` the host's boot id: a number alone is soon another process's."""

    pid: int
    started: int
    boot: str


def identify(pid: int) -> ProcessIdentity | None:
    """The identity of the process that has this number now, or None when there is none (or only its remains)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2 :].split()  # the name in parentheses may hold anything
    if fields[0] in ("Z", "X"):
        return None
    return ProcessIdentity(pid, int(fields[_STARTTIME - 2]), boot)


def is_alive(process: ProcessIdentity, mark: str) -> bool:
    """Whether this very process still runs. `mark` must stand in its command line."""
    if identify(process.pid) != process:
        return False
    try:
        command = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return mark.encode() in command


def end(process: ProcessIdentity, mark: str, *, kill: bool = False, patience: float = 5.0) -> None:
    """Ends the process: politely, then by force after `patience` seconds. Nothing happens when it is already gone.

    Raises DeviceError when it is there and cannot be ended.
    """
    for number in (signal.SIGKILL,) if kill else (signal.SIGTERM, signal.SIGKILL):
        if not is_alive(process, mark):
            return
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            return
        except PermissionError as error:
            raise DeviceError(f"process {process.pid} belongs to somebody else", fix="stop it as that user") from error
        deadline = time.monotonic() + patience
        while is_alive(process, mark):
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        else:
            return
    raise DeviceError(f"process {process.pid} does not end", code="does-not-end")
