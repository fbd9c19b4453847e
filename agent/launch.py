"""Starts the fresh processes and turns their deaths into errors that say something."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from typing import Any, Dict, Tuple

from agent import site
from agent.contract.errors import DeviceError, EdgepackError, from_wire

_MEANING = {
    signal.SIGILL: ("the processor does not know an instruction of this build", "install a build for this processor"),
    signal.SIGKILL: (
        "the kernel killed it: very likely the device ran out of memory",
        "free memory, or use a smaller model",
    ),
    signal.SIGSEGV: ("the runtime crashed", "try another version of the runtime; `edgepack devices doctor` shows it"),
    signal.SIGBUS: ("the runtime crashed (bus error)", "check the disk and memory of the device"),
    signal.SIGABRT: ("the runtime gave up", "its last words are above"),
}


def in_child(task: Dict[str, Any]) -> Any:
    """The result of `task` (see `agent.child`), run in a process of its own. Raises what the child raised, or DeviceError."""
    try:
        scratch = tempfile.mkdtemp(prefix="edgepack-")
    except OSError as error:
        raise DeviceError(
            "the device has no folder for temporary files: %s" % error, fix="free space in /tmp", code="no-space"
        ) from error
    try:
        out, talk, status = _run(json.dumps({**task, "path": site.added()}).encode("utf-8") + b"\n", scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    document = _last_document(out)
    if document.get("type") == "result":
        return document["result"]
    if document.get("type") == "error":
        raise from_wire(document["error"])
    raise _death(status, talk)


def _run(task: bytes, scratch: str) -> Tuple[bytes, bytes, int]:
    """Output, talk and status of the process. `scratch` is its folder for temporary files: a process that is killed cannot
    clear its own.
    """
    child = subprocess.Popen(
        [sys.executable, "-I", sys.argv[0], "_child", str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": scratch},
    )
    try:
        out, talk = child.communicate(task)
    finally:
        child.kill()
        child.wait()
    return out, talk, child.returncode


def _last_document(out: bytes) -> Dict[str, Any]:
    lines = out.splitlines()
    if not lines:
        return {}
    try:
        document = json.loads(lines[-1])
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _death(status: int, talk: bytes) -> EdgepackError:
    tail = talk.decode("utf-8", "replace").strip()[-2000:]
    if status < 0:
        name = signal.Signals(-status).name
        meaning, fix = _MEANING.get(signal.Signals(-status), ("it was killed", ""))
        return DeviceError(
            "the measuring process died of %s: %s" % (name, meaning), where=tail, fix=fix, code="child-" + name.lower()
        )
    return DeviceError("the measuring process ended with status %d" % status, where=tail, code="child-failed")
