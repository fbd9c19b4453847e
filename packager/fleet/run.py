"""One call on many devices: so many at a time, each within its time, tried again where that may help; none stops another."""

from __future__ import annotations

import dataclasses
import queue
import random
import threading
import time
from typing import TYPE_CHECKING, Any

from agent.contract.errors import DeviceError, EdgepackError, TransientDeviceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from packager.device.device import Device

_LOOK = 0.2  # seconds between looks at the deadlines
_LONGEST_PAUSE = 30.0
_LEAVE = 10.0  # seconds that devices have to end in good order after Ctrl-C
DEADLINE = "fleet-deadline"


@dataclasses.dataclass(frozen=True)
class Limits:
    """`deadline` is for all tries on one device together (seconds, None: no end); `pause` before the second try doubles."""

    at_once: int = 16
    deadline: float | None = None
    retries: int = 0
    pause: float = 1.0


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How it went on one device: `error` is None where `result` is what the call gave."""

    device: str
    result: Any
    error: EdgepackError | None
    tries: int
    seconds: float


class _Running:
    """The devices that work just now: when each began, and whether it was told to end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._devices: dict[str, tuple[Device | None, float]] = {}
        self._expired: set[str] = set()

    def enter(self, name: str, device: Device | None, start: float) -> None:
        with self._lock:
            self._devices[name] = (device, start)

    def leave(self, name: str) -> None:
        with self._lock:
            self._devices.pop(name, None)

    def expired(self, name: str) -> bool:
        return name in self._expired

    def interrupt(self, older_than: float | None) -> None:
        """Tells the devices that have worked for so long, or all of them, to end."""
        now = time.monotonic()
        with self._lock:
            late = [
                (name, device)
                for name, (device, start) in self._devices.items()
                if device is not None and name not in self._expired and (older_than is None or now - start > older_than)
            ]
            if older_than is not None:
                self._expired.update(name for name, _ in late)
        for _, device in late:
            device.interrupt()


class Fleet:
    """Runs `call` on each device that `open_` opens by its name."""

    def __init__(self, open_: Callable[[str], Device], call: Callable[[Device], Any], limits: Limits) -> None:
        self._open, self._call, self._limits = open_, call, limits
        self._todo: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._running = _Running()
        self._looked = 0.0

    def run(self, names: Iterable[str]) -> Iterator[Outcome]:
        """The outcomes as they come. When the reader stops, or Ctrl-C is pressed, every device is told to end."""
        asked = list(dict.fromkeys(names))
        for name in asked:
            self._todo.put(name)
        count = min(self._limits.at_once, len(asked))
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        try:
            for _ in asked:
                yield self._next()
        finally:
            self._stop.set()
            if any(thread.is_alive() for thread in threads):
                self._running.interrupt(None)
            end = time.monotonic() + _LEAVE
            for thread in threads:
                thread.join(max(0.0, end - time.monotonic()))

    def _next(self) -> Outcome:
        while True:
            # Looked at whether or not others answer meanwhile: a busy fleet is no reason to wait for one that hangs.
            now = time.monotonic()
            if self._limits.deadline is not None and now - self._looked >= _LOOK:
                self._looked = now
                self._running.interrupt(self._limits.deadline)
            try:
                return self._done.get(timeout=_LOOK)
            except queue.Empty:
                continue

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                name = self._todo.get_nowait()
            except queue.Empty:
                return
            self._done.put(self._one(name))

    def _one(self, name: str) -> Outcome:
        start, tries, result = time.monotonic(), 0, None
        error: EdgepackError | None = None
        while True:
            tries += 1
            try:
                result, error = self._try(name, start), None
            except EdgepackError as caught:
                error = caught
            except KeyboardInterrupt:  # raised in this thread by Device.interrupt, not by the keyboard
                error = self._ended(name)
            except Exception as caught:  # noqa: BLE001 - one device's trouble, whatever it is, is not the others'
                error = EdgepackError(f"this is a bug: {type(caught).__name__}: {caught}", where=name, code="bug")
                error.__cause__ = caught
            if error is None or not self._again(error, tries, start):
                return Outcome(name, result, error, tries, time.monotonic() - start)

    def _try(self, name: str, start: float) -> Any:
        with self._open(name) as device:
            self._running.enter(name, device, start)
            try:
                return self._call(device)
            finally:
                self._running.leave(name)

    def _again(self, error: EdgepackError, tries: int, start: float) -> bool:
        """Whether to try again, after a pause that grows; not all at the same moment."""
        if not error.retry or tries > self._limits.retries or error.code in {DEADLINE, "interrupted"}:
            return False
        pause = min(_LONGEST_PAUSE, self._limits.pause * 2.0 ** (tries - 1)) * random.uniform(0.5, 1.0)  # noqa: S311
        deadline = self._limits.deadline
        if deadline is not None and time.monotonic() + pause - start > deadline:
            return False
        return not self._stop.wait(pause)

    def _ended(self, name: str) -> DeviceError:
        if self._running.expired(name):
            return TransientDeviceError(
                f"it was not done within {self._limits.deadline:g} s",
                where=name,
                fix="give it longer (--deadline), or see what the device is busy with",
                code=DEADLINE,
            )
        return TransientDeviceError("it was interrupted", where=name, fix="--resume goes on", code="interrupted")
