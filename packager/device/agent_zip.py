"""The agent as one file: sorted entries, fixed timestamps, so that two builds are identical and its hash is its name."""

from __future__ import annotations

import functools
import hashlib
import io
import zipfile
from pathlib import Path

# Read before anything else on the device; must parse on any Python 3, to say which version is needed.
_MAIN = b"""import sys
if sys.version_info < (3, 8):
    import json
    what = "the device's Python is %d.%d" % sys.version_info[:2]
    fix = "name a newer interpreter: edgepack devices add NAME ADDRESS --python PATH"
    error = {"kind": "DeviceError", "what": what, "where": sys.executable, "expected": "Python 3.8 or newer", "fix": fix,
             "code": "old-python"}
    print(json.dumps({"type": "error", "error": error}))
    sys.exit(4)
from agent.__main__ import main
sys.exit(main())
"""


@functools.cache
def agent_zip() -> bytes:
    """The zipapp's bytes."""
    import agent

    base = Path(agent.__file__).parent
    buffer = io.BytesIO()
    buffer.write(b"#!/usr/bin/env python3\n")
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        _add(archive, "__main__.py", _MAIN)
        for path in sorted(base.rglob("*.py")):
            _add(archive, "agent/" + path.relative_to(base).as_posix(), path.read_bytes())
    return buffer.getvalue()


def agent_name() -> str:
    """The file's name on the device: addressed by its hash, so that version skew is impossible."""
    return f"agent-{hashlib.sha256(agent_zip()).hexdigest()[:12]}.pyz"


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    entry.create_system = 3
    archive.writestr(entry, data, compresslevel=9)
