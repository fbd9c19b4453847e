"""This machine as a device: the same commands and copies as over SSH, without a link."""

from __future__ import annotations

import contextlib
import io
import os
import selectors
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self, cast

from agent.contract.errors import EdgepackError, UsageError
from packager.device.commands import CommandTransport
from packager.device.transport import (
    INTERRUPT_GRACE,
    PIECE,
    Consumer,
    Readable,
    Tail,
    Watch,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

# How long a command that must end may take to clean up after SIGTERM before SIGKILL.
_TERM_GRACE = 2.0
_SLICE = 0.5
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126  # a shell's own statuses, so that both transports say the same


class LocalTransport(CommandTransport):
    """The device `local`. Each command runs in a process group of its own, which ends with it when it must end."""

    def __init__(self, python: str = sys.executable, name: str = "local") -> None:
        super().__init__(python, name)

    def _execute(
        self,
        argv: Sequence[str],
        stdin: bytes | Readable,
        consumer: Consumer,
        watch: Watch,
        on_interrupt: bytes | None = None,
    ) -> tuple[int, bytes]:
        if not argv:
            raise UsageError("there is no command to run")
        watch.interrupted = self._interrupted
        watch.check()
        program = str(Path(argv[0]).expanduser()) if argv[0].startswith("~/") else argv[0]
        pipe = subprocess.PIPE
        try:
            process = subprocess.Popen(
                [program, *argv[1:]], stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, process_group=0
            )
        except (FileNotFoundError, NotADirectoryError) as error:
            return _NOT_FOUND, f"{program}: {error.strerror}".encode()
        except PermissionError as error:
            return _NOT_EXECUTABLE, f"{program}: {error.strerror}".encode()
        except (OSError, ValueError) as error:
            raise UsageError(f"{watch.what} cannot be started: {error}", code="not-started") from error
        with _Exchange(process, stdin, consumer, watch, keep_stdin=on_interrupt is not None) as exchange:
            try:
                exchange.pump()
            except KeyboardInterrupt:
                if on_interrupt is not None:
                    exchange.interrupt(on_interrupt)
                raise
            status = process.wait()
        return (status if status >= 0 else 128 - status), exchange.stderr.value()


class _Exchange:
    """Moves a process's three streams at once, and sees to it that the process has ended when this ends."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        stdin: bytes | Readable,
        consumer: Consumer,
        watch: Watch,
        *,
        keep_stdin: bool,
    ) -> None:
        self._process, self._consumer, self._watch, self._keep_stdin = process, consumer, watch, keep_stdin
        self._source: Readable = io.BytesIO(stdin) if isinstance(stdin, bytes) else stdin
        self._pending = memoryview(b"")
        self._over = False
        self.stderr = Tail()
        self._selector = selectors.DefaultSelector()
        self._in, self._out, self._err = (
            cast("IO[bytes]", pipe) for pipe in (process.stdin, process.stdout, process.stderr)
        )
        read, write = selectors.EVENT_READ, selectors.EVENT_WRITE
        for stream, event in ((self._in, write), (self._out, read), (self._err, read)):
            os.set_blocking(stream.fileno(), False)
            self._selector.register(stream, event)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        for stream in (self._in, self._out, self._err):
            with contextlib.suppress(BrokenPipeError):
                stream.close()
        if not self._over:
            self._end()

    def pump(self) -> None:
        """Moves bytes until the process has closed its output and ended. Raises TransientDeviceError at a limit."""
        while self._out_open():
            self._watch.check()
            for key, _ in self._selector.select(self._watch.left(_SLICE)):
                self._move(key.fileobj)
        self._consumer.finish()
        self._finish_stdin()
        while self._process.poll() is None:
            self._watch.check()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(self._watch.left(_SLICE))
        self._over = True

    def interrupt(self, message: bytes) -> None:
        """Sends `message` and gives the command a little time to end in good order."""
        if self._in.closed or self._in in self._selector.get_map():
            return  # its input is over, or still being sent: these bytes would be taken for a part of it
        with contextlib.suppress(BrokenPipeError, BlockingIOError):
            self._in.write(message)
        self._watch = Watch(self._watch.what, INTERRUPT_GRACE)
        with contextlib.suppress(EdgepackError):  # the interrupt that goes on says more
            self.pump()

    def _out_open(self) -> bool:
        known = self._selector.get_map()
        return self._out in known or self._err in known

    def _move(self, stream: object) -> None:
        if stream is self._in:
            self._write()
        elif data := self._read(self._out if stream is self._out else self._err):
            self._watch.touch()
            if stream is self._out:
                self._consumer.feed(data)
            else:
                self.stderr.feed(data)

    def _read(self, stream: IO[bytes]) -> bytes:
        try:
            data = os.read(stream.fileno(), PIECE)
        except BlockingIOError:
            return b""
        if not data:
            self._selector.unregister(stream)
        return data

    def _write(self) -> None:
        if not self._pending:
            try:
                self._pending = memoryview(self._source.read(PIECE))
            except OSError as error:
                raise UsageError(f"cannot read what is to be sent: {error}", code="no-file") from error
        if not self._pending:
            self._selector.unregister(self._in)
            if not self._keep_stdin:
                self._finish_stdin()
            return
        try:
            self._pending = self._pending[os.write(self._in.fileno(), self._pending) :]
            self._watch.touch()
        except BlockingIOError:
            pass
        except BrokenPipeError:  # the command reads no more: its status says whether that is a fault
            self._selector.unregister(self._in)
            self._finish_stdin()

    def _finish_stdin(self) -> None:
        if not self._in.closed:
            if self._in in self._selector.get_map():
                self._selector.unregister(self._in)
            with contextlib.suppress(BrokenPipeError):
                self._in.close()

    def _end(self) -> None:
        """SIGTERM to the group, then SIGKILL to what is left of it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_TERM_GRACE)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
