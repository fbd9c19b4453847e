"""What the agent says, read with suspicion: a device may be broken, or in other hands."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from agent.contract import codec
from agent.contract.errors import ContractError, DeviceError, EdgepackError, from_wire
from packager.device.bootstrap import printable, short

if TYPE_CHECKING:
    from packager.protocols import Completed

T = TypeVar("T")
_MAX_MESSAGE = 200
_MAX_TALK = 2000
_SIGNAL_STATUS = 128


class Answer:
    """Reads the agent's lines. What is no line of the protocol is an error, kept short."""

    def __init__(self, progress: Callable[[str], None]) -> None:
        self._progress = progress
        self._last: dict[str, Any] | None = None

    def line(self, raw: bytes) -> None:
        """Takes one line. Raises DeviceError, code "protocol"."""
        try:
            document = json.loads(raw)
        except (ValueError, RecursionError) as error:
            what = f"the device sent what is not the agent's protocol: {short(raw)}"
            raise DeviceError(what, fix=_FIX, code="protocol") from error
        kind = document.get("type") if isinstance(document, dict) else None
        if not isinstance(kind, str):
            raise DeviceError(f"the device sent an unknown line: {short(raw)}", fix=_FIX, code="protocol")
        if kind == "progress":
            self._progress(printable(str(document.get("message", ""))[:_MAX_MESSAGE].encode()))
        elif kind in {"result", "error"}:
            self._last = document
        elif kind != "heartbeat":
            raise DeviceError(f"the device sent an unknown line: {short(raw)}", fix=_FIX, code="protocol")

    def value(self, done: Completed, device: str) -> Any:
        """The result. Raises the error that the agent told, or DeviceError, code "no-answer"."""
        if self._last is None:
            raise _no_answer(done, device)
        if self._last["type"] == "error":
            error: EdgepackError = from_wire(self._last.get("error"))
            for name in ("what", "where", "expected", "fix", "code"):
                setattr(error, name, clean(getattr(error, name)))
            error.where = f"{device}: {error.where}" if error.where else device
            raise error
        try:
            return clean(self._last.get("result"))
        except RecursionError as error:
            raise DeviceError(f"{device} answered with too deep a document", fix=_FIX, code="protocol") from error


_FIX = "see that the interpreter and the shell on the device print nothing of their own: edgepack devices list"


def clean(value: Any) -> Any:
    """The JSON value with every string made safe to show on a terminal."""
    if isinstance(value, str):
        if value.isprintable():
            return value
        return "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in value)
    if isinstance(value, list):
        return [item if type(item) is int else clean(item) for item in value]
    if isinstance(value, dict):
        return {clean(key): clean(item) for key, item in value.items()}
    return value


def decoded(kind: type[T], value: Any, device: str) -> T:
    """A document from the device. Raises DeviceError, code "reply", for what is not `kind`."""
    try:
        return codec.decode(kind, value)
    except ContractError as error:
        what = f"{device} answered with something else than asked: {error.what}"
        raise DeviceError(what, where=error.where, fix=error.fix, code="reply") from error


def part(result: Any, key: str, kind: type[T], device: str) -> T:
    """`result[key]`, which must be of this type. Raises DeviceError, code "reply"."""
    value = result.get(key) if isinstance(result, dict) else None
    if not isinstance(value, kind):
        raise DeviceError(f"{device} answered with something else than asked: {short(result)}", code="reply")
    return value


def _no_answer(done: Completed, device: str) -> DeviceError:
    talk = printable(done.stderr, _MAX_TALK)
    what, fix = f"the agent ended without an answer (status {done.status})", ""
    number = done.status - _SIGNAL_STATUS
    if number in set(signal.Signals):
        what = f"the agent was killed by {signal.Signals(number).name} before it answered"
        if number == signal.SIGKILL:
            fix = "somebody killed it, or the device ran out of memory: `dmesg` there says which"
    return DeviceError(what, where=f"{device}: {talk}" if talk else device, fix=fix, code="no-answer")
