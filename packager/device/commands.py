"""What a transport owes its callers, made from the one thing in which transports differ: how a command runs."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import IO, TYPE_CHECKING

from packager.device.transport import Collect, Completed, Consumer, Lines, Readable, Watch, describe, get_file, put_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


class CommandTransport(ABC):
    """Commands and copies over `_execute`. `python` is the interpreter there that copies files.

    Whatever runs raises TransientDeviceError with the code "deadline", over a network also "link-lost" or "unreachable", and
    DeviceError.
    """

    def __init__(self, python: str, name: str) -> None:
        self.python, self.name = python, name
        self._interrupted = threading.Event()

    def run(
        self,
        argv: Sequence[str],
        stdin: bytes | IO[bytes] = b"",
        deadline: float | None = None,
        on_line: Callable[[bytes], None] | None = None,
        idle: float | None = None,
        on_interrupt: bytes | None = None,
    ) -> Completed:
        """Runs `argv`; see packager.protocols.Transport.run."""
        what = describe(argv, self.name)
        collected = Collect(what)
        consumer: Consumer = collected if on_line is None else Lines(what, on_line)
        status, stderr = self._execute(argv, stdin, consumer, Watch(what, deadline, idle), on_interrupt)
        return Completed(status, collected.value(), stderr)

    def put(
        self, source: Path, target: str, deadline: float | None = None, progress: Callable[[int], None] | None = None
    ) -> None:
        """Copies a file to where the agent will look for it; `progress` gets the bytes of each piece as it goes."""
        put_file(self._execute, self.name, self.python, source, target, deadline, progress)

    def get(self, source: str, target: Path, deadline: float | None = None) -> None:
        """Copies a file from the device."""
        get_file(self._execute, self.name, self.python, source, target, deadline)

    def interrupt(self) -> None:
        """See Interruptible."""
        self._interrupted.set()

    def close(self) -> None:
        """Forgets an interruption; what keeps a connection ends it here too. Never raises."""
        self._interrupted.clear()

    @abstractmethod
    def _execute(
        self,
        argv: Sequence[str],
        stdin: bytes | Readable,
        consumer: Consumer,
        watch: Watch,
        on_interrupt: bytes | None = None,
    ) -> tuple[int, bytes]:
        """See packager.device.transport.Execute."""
