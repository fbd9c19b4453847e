"""One measurement at a time: a queue of those who wait, and a lease by which somebody has the device for a while.

ROOT/turns/NUMBER.json is a place in the queue, held with a lock that ends with its process, so nobody who died is waited
for. ROOT/lease.json names an owner and when it ends, in seconds since this boot: no clock that jumps can prolong it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from pathlib import Path
from typing import IO, Any, Dict, Iterator, List, Optional

from agent.contract.errors import TransientDeviceError, UsageError
from agent.disk import disk_errors, write_atomic
from agent.wire import Wire

LONGEST = 86400.0
_PAUSE = 0.3


def lease(root: Path) -> Optional[Dict[str, Any]]:
    """Who has the device: owner, seconds left. None when nobody has, or the device has started anew since."""
    try:
        told = json.loads((root / "lease.json").read_text(encoding="utf-8"))
        left = float(told["until"]) - time.monotonic()
        owner = str(told["owner"])[:200]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if told.get("boot") != _boot() or left <= 0:
        return None
    return {"owner": owner, "seconds_left": min(left, LONGEST)}


def take(root: Path, owner: str, seconds: float) -> Dict[str, Any]:
    """Takes or prolongs the lease. The store's lock must be held. Raises TransientDeviceError, code busy, UsageError."""
    if not 0 < seconds <= LONGEST or not owner:
        raise UsageError("a lease needs an owner and lasts up to a day", where="%r, %g s" % (owner[:80], seconds))
    have = lease(root)
    if have is not None and have["owner"] != owner:
        raise _busy(have)
    document = {"owner": owner[:200], "until": time.monotonic() + seconds, "boot": _boot()}
    with disk_errors(root):
        write_atomic(root / "lease.json", json.dumps(document).encode("utf-8"))
    return {"owner": owner[:200], "seconds_left": seconds}


def release(root: Path, owner: str, force: bool = False) -> None:
    """Ends the lease. The store's lock must be held. Raises TransientDeviceError, code busy, when it is another's."""
    have = lease(root)
    if have is not None and have["owner"] != owner and not force:
        raise _busy(have)
    with contextlib.suppress(FileNotFoundError):
        (root / "lease.json").unlink()


def waiting(root: Path) -> List[Dict[str, Any]]:
    """Who measures, first, and who waits."""
    found = []
    for path in _places(root):
        with contextlib.suppress(OSError, ValueError):
            if not _dead(path):
                found.append(json.loads(path.read_text(encoding="utf-8")))
    return found


@contextlib.contextmanager
def mine(root: Path, owner: str, wait: float, wire: Wire) -> Iterator[None]:
    """The device for this measurement alone. Raises TransientDeviceError, code busy, after `wait` seconds."""
    with disk_errors(root), _place(root, owner) as place:
        end, told = time.monotonic() + wait, ""
        while True:
            before = next((one for one in _places(root) if one.name < place.name and not _dead(one)), None)
            have = lease(root)
            if before is None and (have is None or have["owner"] == owner):
                break
            holder = have if before is None else {"owner": _owner(before), "seconds_left": None}
            if time.monotonic() >= end:
                raise _busy(holder or {})
            if told != str((holder or {})["owner"]):
                told = str((holder or {})["owner"])
                wire.progress("waiting: %s has the device" % told)
            time.sleep(_PAUSE)
        yield


@contextlib.contextmanager
def _place(root: Path, owner: str) -> Iterator[Path]:
    folder = root / "turns"
    folder.mkdir(mode=0o700, exist_ok=True)
    file: IO[str]
    with open(str(root / "turns.lock"), "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        last = max([int(path.stem) for path in _places(root)], default=0)
        path = folder / ("%012d.json" % (last + 1))
        file = open(str(path), "x", encoding="utf-8")  # noqa: SIM115 - closed below
        fcntl.flock(file, fcntl.LOCK_EX)
    with file:
        try:
            json.dump({"owner": owner[:200], "pid": os.getpid()}, file)
            file.flush()
            yield path
        finally:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()


def _places(root: Path) -> List[Path]:
    return sorted(path for path in (root / "turns").glob("*.json") if path.stem.isdigit())


def _dead(path: Path) -> bool:
    """Whether its owner has gone; its place is then free."""
    try:
        with open(str(path), "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            path.unlink()
    except FileNotFoundError:
        pass
    return True


def _owner(path: Path) -> str:
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["owner"])[:200]
    except (OSError, ValueError, KeyError, TypeError):
        return "somebody"


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _busy(holder: Dict[str, Any]) -> TransientDeviceError:
    left = holder.get("seconds_left")
    until = " for %.0f s more" % left if isinstance(left, float) else ""
    return TransientDeviceError(
        "%s has the device%s" % (holder.get("owner", "somebody"), until),
        fix="wait, or ask: edgepack devices unlock DEVICE --force takes it away",
        code="busy",
    )
