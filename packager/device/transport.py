"""What the transports share: limits on time and size, the shape of a finished command, and the copying of files."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import secrets
import shlex
import threading
import time
from typing import IO, TYPE_CHECKING, Protocol

from agent.contract.errors import DeviceError, IntegrityError, TransientDeviceError, UsageError
from packager.artifact import digest_files
from packager.device import bootstrap
from packager.protocols import Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

MAX_STDOUT = 64 << 20
MAX_STDERR = 1 << 20
MAX_LINE = 64 << 20
MAX_FILE = 16 << 30  # what a device may claim a file of its own to be
PIECE = 1 << 18
# A copy that neither moves nor ends for so long has failed: a slow card's fsync of a large file takes tens of seconds.
COPY_IDLE = 120.0
# How long a command may take to end in good order after a KeyboardInterrupt.
INTERRUPT_GRACE = 5.0


@dataclasses.dataclass
class Completed:
    """What a command on the device left. A command killed by signal N has the status 128 + N, as in a shell."""

    status: int
    stdout: bytes
    stderr: bytes


class Consumer(Protocol):
    """Takes a command's standard output piece by piece."""

    def feed(self, data: bytes) -> None:
        """Takes a piece. May raise, which ends the command."""

    def finish(self) -> None:
        """Told at the end of the output."""


class Readable(Protocol):
    """What is asked of a file that becomes a command's standard input."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes, none at the end."""


class Execute(Protocol):
    """A transport's engine: runs `argv`, feeds `consumer`, and gives the status and the end of standard error."""

    def __call__(
        self,
        argv: Sequence[str],
        stdin: bytes | Readable,
        consumer: Consumer,
        watch: Watch,
        on_interrupt: bytes | None = None,
    ) -> tuple[int, bytes]:
        """The status and standard error."""


class Interruptible(Transport, Protocol):
    """A transport that ends what it does when another thread says so."""

    def interrupt(self) -> None:
        """What runs now, and whatever comes before `close`, raises KeyboardInterrupt in its own thread, within a second."""


class Watch:
    """The time that a command may take: `deadline` for all of it, `idle` for the longest silence (seconds or None).

    Bytes in either direction end a silence: an upload is no silence.
    """

    def __init__(self, what: str, deadline: float | None = None, idle: float | None = None) -> None:
        self.what = what
        self.interrupted: threading.Event | None = None  # set by another thread: Interruptible.interrupt
        self._deadline, self._idle = deadline, idle
        self._started = self._moved = time.monotonic()

    def touch(self) -> None:
        """Something moved."""
        self._moved = time.monotonic()

    def left(self, longest: float) -> float:
        """The seconds until a limit may be reached, at most `longest`."""
        now, limits = time.monotonic(), [longest]
        if self._deadline is not None:
            limits.append(self._started + self._deadline - now)
        if self._idle is not None:
            limits.append(self._moved + self._idle - now)
        return max(0.0, min(limits))

    def check(self) -> None:
        """Raises TransientDeviceError, code "deadline", when a limit has been reached; KeyboardInterrupt when interrupted."""
        if self.interrupted is not None and self.interrupted.is_set():
            raise KeyboardInterrupt
        now = time.monotonic()
        if self._deadline is not None and now - self._started >= self._deadline:
            reason = f"did not end within {self._deadline:g} s"
        elif self._idle is not None and now - self._moved >= self._idle:
            reason = f"said nothing for {self._idle:g} s"
        else:
            return
        raise TransientDeviceError(
            f"{self.what} {reason}", fix="see what the device is busy with, then try again", code="deadline"
        )


class Collect:
    """Keeps the output. More than `limit` bytes are refused: a device is not trusted with this machine's memory."""

    def __init__(self, what: str, limit: int = MAX_STDOUT) -> None:
        self._what, self._limit, self._size = what, limit, 0
        self._pieces: list[bytes] = []

    def feed(self, data: bytes) -> None:
        """Takes a piece. Raises DeviceError, code "too-much-output"."""
        self._size += len(data)
        if self._size > self._limit:
            raise DeviceError(f"{self._what} wrote more than {self._limit} bytes", code="too-much-output")
        self._pieces.append(data)

    def finish(self) -> None:
        """Nothing to do."""

    def value(self) -> bytes:
        """All that came."""
        return b"".join(self._pieces)


class Lines:
    """Hands each line on, without its newline, as soon as it is whole."""

    def __init__(self, what: str, on_line: Callable[[bytes], None], limit: int = MAX_LINE) -> None:
        self._what, self._on_line, self._limit, self._size = what, on_line, limit, 0
        self._pieces: list[bytes] = []

    def feed(self, data: bytes) -> None:
        """Takes a piece. Raises DeviceError, code "too-much-output", for a line above the limit."""
        *whole, rest = data.split(b"\n")
        for part in whole:
            self._keep(part)
            line = b"".join(self._pieces)
            self._pieces, self._size = [], 0
            self._on_line(line)
        self._keep(rest)

    def finish(self) -> None:
        """Hands on what followed the last newline."""
        if self._size:
            self._on_line(b"".join(self._pieces))

    def _keep(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._limit:
            raise DeviceError(f"{self._what} wrote a line above {self._limit} bytes", code="too-much-output")
        if part:
            self._pieces.append(part)


class Tail:
    """The end of standard error: a chatty runtime is no fault, so the front is dropped, and says so."""

    def __init__(self, limit: int = MAX_STDERR) -> None:
        self._limit, self._dropped, self._kept = limit, 0, bytearray()

    def feed(self, data: bytes) -> None:
        """Takes a piece."""
        self._kept += data
        over = len(self._kept) - self._limit
        if over > self._limit:  # not at every piece: it moves all that is kept
            self._dropped += over
            del self._kept[:over]

    def value(self) -> bytes:
        """What is left, headed by how much is missing."""
        over = max(0, len(self._kept) - self._limit)
        kept = bytes(self._kept[over:])
        return b"[%d bytes left out]\n%s" % (self._dropped + over, kept) if self._dropped + over else kept


def describe(argv: Sequence[str], device: str) -> str:
    """A command as errors name it; programs given with -c are too long to show."""
    shown = [text if "\n" not in text else "..." for text in argv]
    return f"`{shlex.join(shown):.200}` on {device}"


def command_line(argv: Sequence[str]) -> str:
    """`argv` for a remote shell, every word quoted. Only a leading "~/" of the program is left to the shell's HOME."""
    if not argv:
        raise UsageError("there is no command to run")
    if any("\0" in word for word in argv):
        raise UsageError("a NUL character cannot be part of a command", where=describe(argv, "the device"))
    if argv[0].startswith("~/"):
        return " ".join([f'"$HOME"/{shlex.quote(argv[0][2:])}', *map(shlex.quote, argv[1:])])
    return shlex.join(argv)


class _Counted:
    """A file whose reading is reported: `progress` gets the bytes of each piece as it goes out."""

    def __init__(self, file: IO[bytes], progress: Callable[[int], None]) -> None:
        self._file, self._progress = file, progress

    def read(self, size: int, /) -> bytes:
        data = self._file.read(size)
        if data:
            self._progress(len(data))
        return data


def put_file(
    execute: Execute,
    device: str,
    python: str,
    source: Path,
    target: str,
    deadline: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Copies `source` to the device's `target`, missing folders made; see Transport.put.

    Raises UsageError (nothing to read), DeviceError ("no-space", "read-only", "permission", "no-python", ...),
    TransientDeviceError, IntegrityError.
    """
    what = f"copying {source.name} to {device}"
    collected = Collect(what, MAX_STDERR)
    try:
        size, digest = source.stat().st_size, digest_files([source])
        file = source.open("rb")
    except OSError as error:
        raise UsageError(f"cannot read {source}: {error.strerror or error}", code="no-file") from error
    with file:
        argv = [python, "-I", "-c", bootstrap.PUT, target, str(size), digest]
        stdin = file if progress is None else _Counted(file, progress)
        status, stderr = execute(argv, stdin, collected, Watch(what, deadline, COPY_IDLE))
    done = Completed(status, collected.value(), stderr)
    reply = bootstrap.read_reply(done, device, python, where=target)
    if reply.get("put") != size:
        raise bootstrap.unasked(device, reply)


class _Received:
    """Reads what GET sends: a line with the size, the bytes, a line with the sha256."""

    def __init__(self, out: IO[bytes], device: str, where: str) -> None:
        self._out, self._device, self._where = out, device, where
        self._digest, self._line = hashlib.sha256(), b""
        self._left: int | None = None  # None until the size is known
        self.whole = False

    def feed(self, data: bytes) -> None:
        while data and self._left is None:
            data = self._header(data)
        if self._left:
            body, data = data[: self._left], data[self._left :]
            self._digest.update(body)
            self._out.write(body)
            self._left -= len(body)
        self._keep(data)

    def finish(self) -> None:
        if self._left != 0:
            return
        reply = bootstrap.parse_reply(self._line.strip() or b"{}", self._device, self._where)
        if "sha256" in reply and reply["sha256"] != self._digest.hexdigest():
            raise IntegrityError(f"the copy differs from the file on {self._device}", where=self._where, code="digest")
        self.whole = "sha256" in reply

    def _header(self, data: bytes) -> bytes:
        line, newline, rest = data.partition(b"\n")
        self._keep(line)
        if newline:
            line, self._line = self._line, b""
            if line.startswith(b"{"):  # anything before it was printed by a login script
                size = bootstrap.parse_reply(line, self._device, self._where).get("get")
                if type(size) is not int or not 0 <= size <= MAX_FILE:
                    raise bootstrap.unasked(self._device, {"get": size})
                self._left = size
        return rest

    def _keep(self, data: bytes) -> None:
        if len(self._line) + len(data) > PIECE:
            raise DeviceError(f"{self._device} sent something else than a file", where=self._where, code="reply")
        self._line += data


def get_file(
    execute: Execute, device: str, python: str, source: str, target: Path, deadline: float | None = None
) -> None:
    """Copies the device's `source` to `target`, which ends up whole or as it was. Raises like `put_file`."""
    part = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.part")
    try:
        out = part.open("xb")
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror or error}", code="no-folder") from error
    try:
        with out:
            received = _Received(out, device, source)
            watch = Watch(f"copying {source} from {device}", deadline, COPY_IDLE)
            status, stderr = execute([python, "-I", "-c", bootstrap.GET, source], b"", received, watch)
            if not received.whole:
                raise bootstrap.no_reply(status, stderr, device, python)
            out.flush()
            os.fsync(out.fileno())
        part.replace(target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
