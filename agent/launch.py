"""Starts the fresh processes and turns their deaths into errors that say something."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from agent.contract.errors import DeviceError, EdgepackError, from_wire
from agent.contract.manifest import Manifest
from agent.disk import disk_errors
from agent.probes import jetson, memory
from agent.wire import Wire, on_cancel
from agent.workshop import Prepared, Workshop

_KEPT_LINES = 200

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
    child = subprocess.Popen(
        [sys.executable, "-I", sys.argv[0], "_child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    on_cancel(child.kill)
    late = threading.Event()

    def end() -> None:
        late.set()
        child.kill()

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    talk: List[bytes] = []
    listener = threading.Thread(target=_keep_talk, args=(child, talk), daemon=True)
    try:
        if seconds:
            timer.start()
        listener.start()
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
    if document.get("type") == "result":
        return document["result"]
    if document.get("type") == "error":
        raise from_wire(document["error"])
    raise _death(child.returncode, b"".join(talk))


def prepare(manifest: Manifest, folder: str, options: Dict[str, Any], root: str, wire: Wire) -> Prepared:
    """What a runner needs before it can load: a runtime that builds on the device does so here, once.

    Runners without a function `prepare` need nothing. Raises what it raises.
    """
    module = importlib.import_module("agent.runners." + manifest.runtime.name)
    if not hasattr(module, "prepare"):
        return Prepared(options)

    def call(function: str, arguments: Dict[str, Any], seconds: float = 0.0) -> Any:
        task = {"task": "call", "runner": manifest.runtime.name, "function": function, "arguments": arguments}
        return in_child(task, wire.progress, seconds)

    shop = Workshop(
        root=os.path.join(root, "cache"),
        call=call,
        progress=wire.progress,
        memory_available=memory.read()["memory_available"],
        board=jetson.board(),
    )
    with disk_errors(Path(root)):
        prepared: Prepared = module.prepare(manifest, folder, options, shop)
    return prepared


def _send(child: Any, task: Dict[str, Any]) -> None:
    # A child that died before it read says why on its standard error.
    with contextlib.suppress(BrokenPipeError):
        child.stdin.write(json.dumps(task).encode("utf-8") + b"\n")
        child.stdin.close()


def _keep_talk(child: Any, talk: List[bytes]) -> None:
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


def _death(status: int, talk: bytes) -> EdgepackError:
    tail = talk.decode("utf-8", "replace").strip()[-2000:]
    if status < 0:
        name = signal.Signals(-status).name
        meaning, fix = _MEANING.get(signal.Signals(-status), ("it was killed", ""))
        return DeviceError(
            "the measuring process died of %s: %s" % (name, meaning), where=tail, fix=fix, code="child-" + name.lower()
        )
    return DeviceError("the measuring process ended with status %d" % status, where=tail, code="child-failed")
