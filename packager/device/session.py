"""The session with the agent: uploads it if absent, sends a job, reads its lines, brings home what a cut link left."""

from __future__ import annotations

import json
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract import codec
from agent.contract.errors import DeviceError, EdgepackError, TransientDeviceError, from_wire
from agent.contract.job import Job
from packager.device.agent_zip import agent_name, agent_zip

if TYPE_CHECKING:
    from packager.protocols import Completed, Transport

IDLE_SECONDS = 60.0  # the agent sends a heartbeat every 5 s: so long a silence is a dead link or a dead device
_CANCEL = b'{"cancel": true}\n'
_MAX_LINE = 64 << 20

Progress = Callable[[str], None]


def _silent(_: str) -> None:
    """No progress wanted."""


class AgentSession:
    """Jobs for the agent on one device, over one transport."""

    def __init__(self, transport: Transport, *, python: str = "python3", root: str = "~/.edgepack") -> None:
        self.transport = transport
        self.python = python
        self.root = root
        self._agent = ""

    def call(self, verb: str, arguments: dict[str, Any], progress: Progress = _silent, job: str = "") -> Any:
        """The verb's result. Raises what the agent raised, or TransientDeviceError when the link was lost."""
        path = self._ensure_agent()
        name = job or new_job()
        document = codec.encode(Job(id=name, verb=verb, root=self.root, arguments=arguments))
        answer = _Answer(progress)
        done = self.transport.run(
            [self.python, "-I", path, verb],
            stdin=json.dumps(document).encode() + b"\n",
            on_line=answer.line,
            idle=IDLE_SECONDS,
            on_interrupt=_CANCEL,
        )
        return answer.value(done, self.transport.name)

    def call_surely(self, verb: str, arguments: dict[str, Any], progress: Progress, reconnect: Reconnect) -> Any:
        """Like `call`, but a result that was written on the device is fetched over a new connection when the link is lost."""
        job = new_job()
        try:
            result = self.call(verb, arguments, progress, job)
        except TransientDeviceError as lost:
            progress("the link was lost: connecting again for the result")
            result = self._fetch(job, lost, reconnect)
        self.call("collect", {"forget": [job]})
        return result

    def _fetch(self, job: str, lost: TransientDeviceError, reconnect: Reconnect) -> Any:
        end = time.monotonic() + reconnect.seconds
        while time.monotonic() < end:
            try:
                self.transport.close()
                self.transport = reconnect.open()
                return self.call("collect", {"job": job})["result"]
            except TransientDeviceError:
                time.sleep(reconnect.pause)
            except DeviceError as error:
                if error.code != "no-result":
                    raise
                time.sleep(reconnect.pause)
        raise lost

    def _ensure_agent(self) -> str:
        """The agent's path on the device; uploads it when it is not there."""
        if self._agent:
            return self._agent
        from packager.device.bootstrap import hello

        wanted = f"{self.root}/agent/{agent_name()}"
        told = hello(self.transport, self.python, [wanted])
        version = tuple(told["python"][:2])
        if version < (3, 8):
            raise DeviceError(
                f"the device's Python is {version[0]}.{version[1]}",
                where=f"{told['executable']} on {self.transport.name}",
                expected="Python 3.8 or newer",
                fix="name a newer interpreter: edgepack devices add NAME ADDRESS --python PATH",
                code="old-python",
            )
        path = str(told["paths"][wanted]["path"])
        if not told["paths"][wanted]["exists"]:
            with tempfile.TemporaryDirectory() as folder:
                local = Path(folder) / agent_name()
                local.write_bytes(agent_zip())
                self.transport.put(local, path)
        self._agent = path
        return path


class Reconnect:
    """How to come back after a lost link."""

    def __init__(self, open_: Callable[[], Transport], seconds: float = 60.0, pause: float = 1.0) -> None:
        self.open = open_
        self.seconds = seconds
        self.pause = pause


def new_job() -> str:
    """A fresh job id."""
    return uuid.uuid4().hex


class _Answer:
    """Reads the agent's lines. The device is not trusted: what is no line of the protocol is an error, kept short."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._last: dict[str, Any] | None = None

    def line(self, raw: bytes) -> None:
        if len(raw) > _MAX_LINE:
            raise DeviceError(f"the device sent a line of {len(raw)} bytes", expected=f"at most {_MAX_LINE}")
        try:
            document = json.loads(raw)
        except ValueError as error:
            raise DeviceError(f"the device sent what is not the agent's protocol: {raw[:200]!r}") from error
        kind = document.get("type") if isinstance(document, dict) else None
        if kind == "progress":
            self._progress(str(document.get("message", ""))[:200])
        elif kind in ("result", "error"):
            self._last = document
        elif kind != "heartbeat":
            raise DeviceError(f"the device sent an unknown line: {raw[:200]!r}", code="protocol")

    def value(self, done: Completed, device: str) -> Any:
        if self._last is None:
            talk = done.stderr.decode("utf-8", "replace").strip()[-2000:]
            raise DeviceError(
                f"the agent ended without an answer (status {done.status})", where=f"{device}: {talk}", code="no-answer"
            )
        if self._last["type"] == "error":
            error: EdgepackError = from_wire(self._last.get("error"))
            error.where = f"{device}: {error.where}" if error.where else device
            raise error
        return self._last["result"]
