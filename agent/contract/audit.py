"""An audit log: JSON lines that are only ever added to, each on the disk before the work goes on; bounded by rotation."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any, Dict, List

MAX_BYTES = 1 << 20
KEPT = 4  # older files beside it: NAME.1 is the youngest of them


def append(path: Path, record: Dict[str, Any]) -> None:
    """Adds a line. Raises OSError."""
    line = json.dumps(record, ensure_ascii=True, allow_nan=False).encode("ascii") + b"\n"
    with open(str(path.with_name(path.name + ".lock")), "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists() and path.stat().st_size + len(line) > MAX_BYTES:
            for number in range(KEPT, 0, -1):
                older = path.with_name("%s.%d" % (path.name, number))
                newer = path if number == 1 else path.with_name("%s.%d" % (path.name, number - 1))
                if newer.exists():
                    os.replace(str(newer), str(older))
        handle = os.open(str(path), os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.fstat(handle).st_size
            # What a power cut left half written must not swallow this line, too.
            torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
            os.write(handle, b"\n" + line if torn else line)
            os.fsync(handle)
        finally:
            os.close(handle)


def read(path: Path, last: int = 1000) -> List[Dict[str, Any]]:
    """The last records, the oldest first; a line that cannot be read is told as {"torn": its beginning}."""
    lines: List[bytes] = []
    for number in range(KEPT, -1, -1):
        file = path if number == 0 else path.with_name("%s.%d" % (path.name, number))
        if file.exists():
            lines += file.read_bytes().splitlines()
    found: List[Dict[str, Any]] = []
    for line in lines[-last:]:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        found.append(record if isinstance(record, dict) else {"torn": repr(line[:80])})
    return found
