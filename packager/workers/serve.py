"""A worker's loop: `python -I serve.py NAME FOLDER` loads NAME.py beside it, and answers tasks until there are no more.

A task is one line of JSON on standard input; its answer is a JSON document in the file that the task names as `result`, and
then one line on standard output. The worker's `warm()`, where it has one, runs before the first task arrives. What the
converter prints goes to standard error; its temporary files go to FOLDER. The loop ends with its input, or with code 75 after
`IDLE` seconds without a task, and FOLDER with it, so that nothing is left behind by a host that forgot it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import select
import shutil
import sys
from pathlib import Path
from typing import Any

IDLE = 60.0  # seconds
WENT_IDLE = 75


def main() -> None:
    """Standard input to the answers' files."""
    told = os.dup(1)
    os.dup2(2, 1)
    name, folder = sys.argv[1:]
    os.environ["TMPDIR"] = folder
    worker = _load(name)
    if hasattr(worker, "warm"):
        worker.warm()
    while line := _line(folder):
        task = json.loads(line)
        Path(task["result"]).write_text(json.dumps(worker.answer(task)), encoding="utf-8")
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(told, b"\n")
    sys.stdout.flush()
    _end(folder, 0)


def _end(folder: str, code: int) -> None:
    """At once: some converters take a second to take themselves apart."""
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(code)


def _load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    if spec is None or spec.loader is None:
        raise ImportError(f"no worker {name!r}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _line(folder: str) -> bytes:
    """The next task; empty at the input's end."""
    found = b""
    while not found.endswith(b"\n"):
        if not found and not select.select([0], [], [], IDLE)[0]:
            _end(folder, WENT_IDLE)
        part = os.read(0, 1 << 16)
        if not part:
            break
        found += part
    return found


if __name__ == "__main__":
    main()
