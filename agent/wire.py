"""The wire: one JSON document in, JSON lines out. Standard output belongs to it alone.

Lines out: {"type": "progress", "message": ...}, {"type": "heartbeat"}, and last {"type": "result", "result": ...} or
{"type": "error", "error": ...}. After the job's line the host may send {"cancel": true}; the end of standard input is no
cancel, since a cut link looks the same and must not lose a measurement.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any, Callable, Dict, List, Optional

from agent.contract import codec
from agent.contract.errors import EdgepackError, UsageError, to_wire

HEARTBEAT_SECONDS = 5.0
MAX_JOB_BYTES = 16 << 20


class Wire:
    """Takes standard output for itself: whatever else prints, in Python or in C, goes to standard error."""

    def __init__(self) -> None:
        sys.stdout.flush()
        self._fd = os.dup(1)
        os.dup2(2, 1)
        sys.stdout = sys.stderr
        self._lock = threading.Lock()
        self._quiet = threading.Event()
        self._gone = False

    def send(self, document: Dict[str, Any]) -> None:
        """Writes one line. When nobody listens any more the work goes on: its result is kept on the device."""
        line = json.dumps(document, allow_nan=False).encode("utf-8") + b"\n"
        with self._lock:
            view = memoryview(line)
            while view and not self._gone:
                try:
                    view = view[os.write(self._fd, view) :]
                except (BrokenPipeError, ConnectionResetError):
                    self._gone = True

    def progress(self, message: str) -> None:
        """Says what is being done."""
        self.send({"type": "progress", "message": message})

    def result(self, value: Any) -> None:
        """The last line: the job's result."""
        self.send({"type": "result", "result": codec.encode(value)})

    def error(self, error: EdgepackError) -> None:
        """The last line: what went wrong."""
        self.send({"type": "error", "error": to_wire(error)})

    def heartbeats(self) -> None:
        """From here on a line every few seconds, so that the host tells slow work from a dead link."""
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        while not self._quiet.wait(HEARTBEAT_SECONDS):
            self.send({"type": "heartbeat"})


def read_document(limit: int = MAX_JOB_BYTES) -> Any:
    """The JSON document on the first line of standard input. Raises UsageError."""
    line = sys.stdin.buffer.readline(limit + 1)
    if len(line) > limit:
        raise UsageError("the job document is larger than %d bytes" % limit)
    try:
        return json.loads(line)
    except ValueError as error:
        raise UsageError("the job on standard input is not one line of JSON: %s" % error) from error


_ON_CANCEL: List[Callable[[], None]] = []


def on_cancel(action: Callable[[], None]) -> None:
    """`action` is called, from another thread, when the host cancels."""
    _ON_CANCEL.append(action)


def watch_for_cancel() -> None:
    """Listens on standard input for {"cancel": true}, then runs the actions and ends the process."""
    threading.Thread(target=_listen, daemon=True).start()


def _listen() -> None:
    while True:
        line = sys.stdin.buffer.readline(1024)
        if not line:
            return
        if _is_cancel(line):
            for action in _ON_CANCEL:
                action()
            os._exit(130)


def _is_cancel(line: bytes) -> Optional[bool]:
    try:
        document = json.loads(line)
    except ValueError:
        return False
    return isinstance(document, dict) and document.get("cancel") is True
