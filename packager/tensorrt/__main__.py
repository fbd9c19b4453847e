"""The door of the preflight's process: one JSON document in, one out, under a limit of memory."""

from __future__ import annotations

import json
import os
import resource
import sys

from packager.tensorrt.worker import run

_MIB = 1 << 20


def main() -> None:
    """Serves one task: {"model", "profiles", "capability", "memory_mb"}."""
    task = json.load(sys.stdin)
    # Standard output is ours: the library may write there.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    limit = int(task["memory_mb"]) * _MIB
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    out.write(json.dumps(run(task)))
    out.flush()
    # The library's destructors are not to be trusted without a driver.
    os._exit(0)


main()
