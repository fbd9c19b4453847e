"""The wire: one JSON document in, JSON lines out. Standard output belongs to it alone.

Lines out: {"type": "progress", "message": ...}, {"type": "heartbeat"}, and last {"type": "result", "result": ...} or
{"type": "error", "error": ...}. After the job's line the host may send {"cancel": true}; the end of standard input is no
cancel, since a cut link looks the same and must not lose a measurement.
"""

from __future__ import annotations

import io
import json
import os
import select
import signal
import sys
import threading
import time
from typing import Any, Dict

from agent.contract import codec
from agent.contract.errors import EdgepackError, UsageError, to_wire

HEARTBEAT_SECONDS = 5.0
SILENCE_SECONDS = 120.0  # so long a pause in what the host streams counts as its end
INTERRUPTED = 130  # the exit status, as a shell's after Ctrl-C
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


class _Input:
    """Standard input by lines, read from its descriptor: Python's own reader would be locked by the thread that waits on it,
    and an interpreter that ends meanwhile aborts over that lock.
    """

    def __init__(self) -> None:
        self._kept = b""

    def line(self, limit: int) -> bytes:
        """The next line with its newline, or what there is when `limit` bytes came without one; empty at the end."""
        while b"\n" not in self._kept and len(self._kept) <= limit:
            data = os.read(0, 1 << 16)
            if not data:
                break
            self._kept += data
        cut = self._kept.find(b"\n") + 1 or len(self._kept)
        line, self._kept = self._kept[:cut], self._kept[cut:]
        return line

    def stream(self) -> io.BufferedReader:
        """What follows the lines that were read, as a file of bytes."""
        kept, self._kept = self._kept, b""
        return io.BufferedReader(_After(kept), 1 << 18)


class _After(io.RawIOBase):
    """`first`, then standard input."""

    def __init__(self, first: bytes) -> None:
        super().__init__()
        self._first = first

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._first:
            count = min(len(buffer), len(self._first))
            buffer[:count], self._first = self._first[:count], self._first[count:]
            return count
        if not select.select([0], [], [], SILENCE_SECONDS)[0]:
            return 0  # the host is gone, and its link hangs: what has come is kept
        return os.readv(0, [buffer])


_INPUT = _Input()
_CANCEL_GRACE = 3.0


def read_document(limit: int = MAX_JOB_BYTES) -> Any:
    """The JSON document on the first line of standard input. Raises UsageError."""
    line = _INPUT.line(limit)
    if len(line) > limit:
        raise UsageError("the job document is larger than %d bytes" % limit)
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError("the job on standard input is not one line of JSON: %s" % error) from error


def read_stream() -> io.BufferedReader:
    """What the host streams after the job's line."""
    return _INPUT.stream()


def watch_for_cancel(*, listen: bool = True) -> None:
    """From here on {"cancel": true} on standard input, SIGINT and SIGTERM raise KeyboardInterrupt in the main thread, so that
    whatever is half done is undone. A main thread that cannot be interrupted has a few seconds. Without `listen` standard
    input is left to the verb.
    """
    # A shell that starts a command in the background has SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if listen:
        threading.Thread(target=_listen, daemon=True).start()


def _listen() -> None:
    while True:
        line = _INPUT.line(1024)
        if not line:
            return
        if _is_cancel(line):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(_CANCEL_GRACE)
            os._exit(INTERRUPTED)


def _is_cancel(line: bytes) -> bool:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("cancel") is True
