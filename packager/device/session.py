"""The session with the agent: uploads it if absent, sends a job, reads its lines, brings home what a cut link left."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract import codec
from agent.contract.errors import DeviceError, TransientDeviceError
from agent.contract.job import Job
from packager.device import audit
from packager.device.agent_zip import agent_name, agent_zip
from packager.device.answers import Answer, part
from packager.device.bootstrap import LAUNCH

if TYPE_CHECKING:
    from packager.device.transport import Interruptible

IDLE_SECONDS = 60.0  # the agent sends a heartbeat every 5 s: so long a silence is a dead link or a dead device
_CANCEL = b'{"cancel": true}\n'
# What a verb may take in all, in seconds; far more than it does, so that no device can hold a host for ever.
DEADLINES = {
    **dict.fromkeys(("check", "bench", "compare", "activate", "rollback", "verify"), 3600.0),
    **dict.fromkeys(("install", "provision", "receive"), 1800.0),
    "evaluate": 86400.0,
}
DEADLINE = 300.0
JOB_GONE = "job-gone"  # the device's word for a job that nobody works on, and that left no result
_SURELY_GONE = 2  # so many times in a row, a pause apart, and it is believed

Progress = Callable[[str], None]


def _silent(_: str) -> None:
    """No progress wanted."""


class AgentSession:
    """Jobs for the agent on one device, over one transport."""

    def __init__(
        self,
        transport: Interruptible,
        *,
        python: str = "python3",
        root: str = "~/.edgepack",
        idle: float = IDLE_SECONDS,
    ) -> None:
        self.transport = transport
        self.python = python
        self.root = root
        self.idle = idle
        self._agent = ""

    def call(
        self, verb: str, arguments: dict[str, Any], progress: Progress = _silent, job: str = "", longer: float = 0.0
    ) -> Any:
        """As `_call`; what changes the device stands in this host's audit log, too."""
        with audit.recorded(self.transport.name, verb, arguments) as note:
            result = self._call(verb, arguments, progress, job, longer)
            note(result)
        return result

    def _call(
        self, verb: str, arguments: dict[str, Any], progress: Progress = _silent, job: str = "", longer: float = 0.0
    ) -> Any:
        """The verb's result; `longer` is added to its deadline (seconds). Raises what the agent raised, DeviceError for what
        is no answer, TransientDeviceError when the link was lost.
        """
        name = job or new_job()
        limits: Any = {"deadline": DEADLINES.get(verb, DEADLINE) + longer, "idle": self.idle, "on_interrupt": _CANCEL}
        line = self._line(verb, name, arguments)
        if not self._agent:
            first = _First(Answer(progress))
            argv = [self.python, "-I", "-c", LAUNCH, f"{self.root}/agent/{agent_name()}", verb]
            with contextlib.suppress(_Unsure):
                done = self.transport.run(argv, stdin=line, on_line=first.line, **limits)
                if first.is_agent:
                    return first.answer.value(done, self.transport.name)
        answer = Answer(progress)
        argv = [self.python, "-I", self._ensure_agent(), verb]
        done = self.transport.run(argv, stdin=line, on_line=answer.line, **limits)
        return answer.value(done, self.transport.name)

    def stream(
        self,
        verb: str,
        arguments: dict[str, Any],
        opened: Callable[[bytes], Any],
        progress: Progress = _silent,
        longer: float = 0.0,
    ) -> Any:
        """As `call`, for a verb that reads on after its job: `opened` is given the job's line and returns what is sent, the
        line first.
        """
        with audit.recorded(self.transport.name, verb, arguments) as note:
            result = self._stream(verb, arguments, opened, progress, longer)
            note(result)
        return result

    def _stream(
        self,
        verb: str,
        arguments: dict[str, Any],
        opened: Callable[[bytes], Any],
        progress: Progress,
        longer: float,
    ) -> Any:
        answer = Answer(progress)
        done = self.transport.run(
            [self.python, "-I", self._ensure_agent(), verb],
            stdin=opened(self._line(verb, new_job(), arguments)),
            deadline=DEADLINES.get(verb, DEADLINE) + longer,
            on_line=answer.line,
            idle=self.idle,
        )
        return answer.value(done, self.transport.name)

    def _line(self, verb: str, job: str, arguments: dict[str, Any]) -> bytes:
        document = codec.encode(Job(id=job, verb=verb, root=self.root, arguments=arguments, who=audit.who()))
        return json.dumps(document).encode() + b"\n"

    def call_surely(
        self, verb: str, arguments: dict[str, Any], progress: Progress, reconnect: Reconnect, longer: float = 0.0
    ) -> tuple[str, Any]:
        """The job's id and its result, which is fetched over a new connection when the link is lost.

        The device keeps the result until `forget` is called for the job. Raises TransientDeviceError, code job-gone, when the
        device is back and nothing there works on the job any more.
        """
        job = new_job()
        try:
            return job, self.call(verb, arguments, progress, job, longer)
        except TransientDeviceError as lost:
            if lost.code == "busy":  # the agent's own answer: somebody else has the device
                raise
            progress("the link was lost: connecting again for the result")
            return job, self._fetch(job, lost, reconnect)

    def forget(self, jobs: list[str]) -> None:
        """The host has the results of these jobs: the device need not keep them."""
        self.call("collect", {"forget": jobs})

    def _fetch(self, job: str, lost: TransientDeviceError, reconnect: Reconnect) -> Any:
        end, gone = time.monotonic() + reconnect.seconds, 0
        while time.monotonic() < end:
            try:
                self.transport.close()
                self.transport = reconnect.open()
                return part(self.call("collect", {"job": job}), "result", dict, self.transport.name)
            except TransientDeviceError:
                time.sleep(reconnect.pause)
            except DeviceError as error:
                if error.code not in {"no-result", JOB_GONE}:
                    raise
                # Once may be too early: the agent was starting when the link was cut.
                gone = gone + 1 if error.code == JOB_GONE else 0
                if gone > _SURELY_GONE:
                    raise _gone(lost) from None
                time.sleep(reconnect.pause)
        lost.fix = "when the device is back: edgepack results collect DEVICE fetches what it has measured"
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


def _gone(lost: TransientDeviceError) -> TransientDeviceError:
    what = f"{lost.what}, and the device does not work on it any more: it was restarted, or the agent was ended"
    return TransientDeviceError(what, where=lost.where, fix="do it again", code=JOB_GONE)


class _Unsure(Exception):  # noqa: N818 - no error: the longer way will say what is wrong, if anything is
    """What answers is not the agent, or not clearly."""


class _First:
    """The lines of a command that is the agent, or says that there is none."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.is_agent = False

    def line(self, raw: bytes) -> None:
        """Takes a line. Raises _Unsure before anything of the agent's has come, then what Answer raises."""
        if not self.is_agent:
            if not raw.startswith(b'{"type": "') or raw == b'{"type": "absent"}':
                raise _Unsure
            self.is_agent = True
        self.answer.line(raw)


class Reconnect:
    """How to come back after a lost link."""

    def __init__(self, open_: Callable[[], Interruptible], seconds: float = 60.0, pause: float = 1.0) -> None:
        self.open = open_
        self.seconds = seconds
        self.pause = pause


def new_job() -> str:
    """A fresh job id."""
    return uuid.uuid4().hex
