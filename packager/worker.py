"""One step in a process of its own, perhaps under another interpreter: JSON in, JSON out.

A worker is a file in `packager/workers/` that imports nothing of edgepack, so that it runs where only its converter is
installed: a function `answer(task)`, and perhaps `warm()`, which imports the converter before there is a task.
`workers/serve.py` is its loop. What it prints is kept and shown when it fails.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, cast

from agent.contract.errors import ConvertError

WORKERS = Path(__file__).parent / "workers"
_TAIL = 2000
_WENT_IDLE = 75  # as workers/serve.py has it

_Key = tuple[int, str, str]  # process, worker, interpreter: a fork of ours must not talk to its parent's workers
_waiting: dict[_Key, _Process] = {}
_lock = threading.Lock()


def run_worker(
    name: str,
    task: Mapping[str, Any],
    *,
    python: str = "",
    what: str = "",
    deadline: float = 3600.0,
    keep: bool = False,
    meanwhile: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """The worker's document. `what` names the step in errors; `deadline` is in seconds. A worker that is started already
    takes the task, else one is started; `keep` lets it wait for further tasks (a minute, then it ends by itself).
    `meanwhile` is called while it works: imports that the host will need anyway.

    Raises ConvertError, code "worker-failed", with the worker's last words; a worker that answers {"error": ...} is a
    ConvertError with the code that it gives.
    """
    what = what or name
    found, talk = _asked(name, python, task, what, deadline, keep, meanwhile)
    if "error" in found:
        raise ConvertError(f"{what}: {found['error']}", where=talk[-_TAIL:], code=found.get("code", "worker-failed"))
    return {**found, "talk": talk}


def _asked(
    name: str,
    python: str,
    task: Mapping[str, Any],
    what: str,
    deadline: float,
    keep: bool,
    meanwhile: Callable[[], object],
) -> tuple[dict[str, Any], str]:
    key = _key(name, python)
    with _lock:
        process = _waiting.pop(key, None) or _Process(name, python)
    try:
        while (answered := process.ask(task, what, deadline, meanwhile)) is None:  # it had waited too long
            process.end()
            process = _Process(name, python)
    except BaseException:
        process.end()
        raise
    with _lock:
        kept = keep and key not in _waiting
        if kept:
            _waiting[key] = process
    if not kept:
        process.end()
    return answered


def start_worker(name: str, python: str = "") -> None:
    """Lets a worker import its converter while the host does something else: the next `run_worker` finds it ready."""
    key = _key(name, python)
    with _lock:
        if key not in _waiting:
            _waiting[key] = _Process(name, python)


@atexit.register
def end_workers() -> None:
    """Ends those that wait for a task."""
    with _lock:
        here = [key for key in _waiting if key[0] == os.getpid()]
        found = [_waiting.pop(key) for key in here]
    for process in found:
        process.end()


def _key(name: str, python: str) -> _Key:
    return os.getpid(), name, python or sys.executable


class _Process:
    """One running worker. Its standard error goes to a file: a pipe that nobody reads while it works would fill up."""

    def __init__(self, name: str, python: str) -> None:
        self._told = tempfile.TemporaryFile()  # noqa: SIM115 - end() closes it
        self._heard = 0  # bytes of it that belong to tasks before
        # Converters leave files, above all where they are killed.
        self._folder = tempfile.mkdtemp(prefix="edgepack-worker-")
        argv = [python or sys.executable, "-I", str(WORKERS / "serve.py"), name, self._folder]
        self._child = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._told, bufsize=0
        )
        self._tasks, self._answers = (cast("IO[bytes]", pipe) for pipe in (self._child.stdin, self._child.stdout))

    def ask(
        self, task: Mapping[str, Any], what: str, deadline: float, meanwhile: Callable[[], object]
    ) -> tuple[dict[str, Any], str] | None:
        """The answer and what was printed meanwhile; None from a process that had ended for want of tasks."""
        with tempfile.TemporaryDirectory(prefix="edgepack-worker-") as folder:
            answer = Path(folder) / "answer.json"
            self._send(json.dumps({**task, "result": str(answer)}).encode() + b"\n")
            meanwhile()
            if not self._answered(what, deadline):
                code = self._child.wait()
                if code == _WENT_IDLE:
                    return None
                died = f"died of signal {-code}" if code < 0 else f"ended with {code}"
                raise ConvertError(f"{what} {died}", where=self._talk()[-_TAIL:], code="worker-failed")
            found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        return found, self._talk()

    def _send(self, line: bytes) -> None:
        # A worker that ended before its task says so by the end of the other pipe.
        with contextlib.suppress(BrokenPipeError):
            os.write(self._tasks.fileno(), line)

    def _answered(self, what: str, deadline: float) -> bool:
        """Whether it said that the answer is there; False where it ended instead. Raises ConvertError after `deadline`."""
        stdout = self._answers.fileno()
        if not select.select([stdout], [], [], deadline)[0]:
            raise ConvertError(f"{what} did not end within {deadline:.0f} s", code="worker-timeout")
        return bool(os.read(stdout, 1))

    def _talk(self) -> str:
        # Read by place: the file's own position is the worker's, which may be writing.
        file = self._told.fileno()
        said = os.pread(file, os.fstat(file).st_size - self._heard, self._heard)
        self._heard += len(said)
        return said.decode("utf-8", "replace").strip()

    def end(self) -> None:
        """The process and all that belongs to it is gone."""
        self._child.kill()
        self._child.wait()
        for pipe in (self._tasks, self._answers, self._told):
            pipe.close()
        shutil.rmtree(self._folder, ignore_errors=True)  # the worker may have done so itself
