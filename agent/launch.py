"""Starts the fresh processes and turns their deaths into errors that say something."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from typing import Any, Callable, Dict, List, Optional, Tuple

from agent import site
from agent.contract.errors import DeviceError, EdgepackError, from_wire

_KEPT_LINES = 200
_SCRATCH = re.compile(r"edgepack-run-([0-9]+)-([0-9]+)-")
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


def in_child(task: Dict[str, Any], progress: Optional[Callable[[str], None]] = None, seconds: float = 0.0) -> Any:
    """The result of `task` (see `agent.child`), run in a process of its own. Raises what the child raised, or DeviceError.

    `progress` is told what the child says meanwhile. After `seconds` (0: never) it is ended, and DeviceError (code
    child-timeout) raised.
    """
    try:
        _clear_stale()
        scratch = tempfile.mkdtemp(prefix="edgepack-run-%s-%d-" % (_pid_space(), os.getpid()))
    except OSError as error:
        raise no_scratch(error) from error
    try:
        line = json.dumps({**task, "path": site.added()}).encode("utf-8") + b"\n"
        document, talk, status = _run(line, scratch, progress, seconds)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if document.get("type") == "result":
        return document["result"]
    if document.get("type") == "error":
        raise from_wire(document["error"])
    raise death(status, talk)


def _clear_stale() -> None:
    """Removes what agents that were killed left behind: folders of ours whose process is gone. Containers may share the
    folder and not the numbers of processes.
    """
    base, space = tempfile.gettempdir(), _pid_space()
    for name in os.listdir(base):
        match = _SCRATCH.match(name)
        path = os.path.join(base, name)
        if match is None or match.group(1) != space:
            continue
        if os.path.exists("/proc/" + match.group(2)) or os.path.islink(path):
            continue
        with contextlib.suppress(OSError):  # another agent was faster
            if os.stat(path).st_uid == os.getuid():
                shutil.rmtree(path, ignore_errors=True)


def _pid_space() -> str:
    """Within what the number of a process means something."""
    try:
        return "".join(char for char in os.readlink("/proc/self/ns/pid") if char.isdigit())
    except OSError:
        return "0"


def _run(
    task: bytes, scratch: str, progress: Optional[Callable[[str], None]], seconds: float
) -> Tuple[Dict[str, Any], bytes, int]:
    """Last document, talk and status of the process. `scratch` is its folder for temporary files: a process that is killed
    cannot clear its own.
    """
    child = subprocess.Popen(
        [sys.executable, "-I", sys.argv[0], "_child", str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": scratch},
    )
    talk: List[bytes] = []
    listener = threading.Thread(target=keep_talk, args=(child, talk), daemon=True)
    late = threading.Event()
    timer = threading.Timer(seconds, lambda: (late.set(), child.kill()))  # type: ignore[func-returns-value]
    timer.daemon = True
    try:
        listener.start()
        if seconds:
            timer.start()
        _send(child, task)
        document = _last_document(child, progress)
        child.wait()
        listener.join()
    finally:
        timer.cancel()
        child.kill()
        child.wait()
    if late.is_set() and document.get("type") != "result":
        raise DeviceError("the work was not done after %.0f s and was ended" % seconds, code="child-timeout")
    return document, b"".join(talk), child.returncode


def _send(child: Any, task: bytes) -> None:
    # A child that died before it read says why on its standard error.
    with contextlib.suppress(BrokenPipeError):
        child.stdin.write(task)
        child.stdin.close()


def keep_talk(child: Any, talk: List[bytes]) -> None:
    """For a thread: the last lines that `child` writes to standard error, into `talk`."""
    for line in child.stderr:
        talk.append(line)
        del talk[:-_KEPT_LINES]


def _last_document(child: Any, progress: Optional[Callable[[str], None]]) -> Dict[str, Any]:
    last: Dict[str, Any] = {}
    for line in child.stdout:
        try:
            document = json.loads(line)
        except ValueError:
            continue
        if not isinstance(document, dict):
            continue
        if document.get("type") != "progress":
            last = document
        elif progress is not None:
            progress(str(document.get("message", ""))[:200])
    return last


def no_scratch(error: OSError) -> DeviceError:
    """The device has no place for temporary files."""
    what = "the device has no folder for temporary files: %s" % error
    return DeviceError(what, fix="free space in /tmp", code="no-space")


def death(status: int, talk: bytes) -> EdgepackError:
    """What the end of a process without an answer means; `talk` is what it wrote to standard error."""
    # torch adds its C++ frames, by the dozen, to the one line that matters.
    lines = [line for line in talk.decode("utf-8", "replace").splitlines() if not line.lstrip().startswith("frame #")]
    tail = "\n".join(lines).strip()[-2000:]
    if status < 0:
        name = signal.Signals(-status).name
        meaning, fix = _MEANING.get(signal.Signals(-status), ("it was killed", ""))
        return DeviceError(
            "the measuring process died of %s: %s" % (name, meaning), where=tail, fix=fix, code="child-" + name.lower()
        )
    return DeviceError("the measuring process ended with status %d" % status, where=tail, code="child-failed")
