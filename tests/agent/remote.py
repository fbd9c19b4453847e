"""The agent as a device runs it: its zipapp, in a process of its own, under a real interpreter; no SSH in between."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from agent.contract import codec
from agent.contract.errors import from_wire
from agent.contract.job import Job
from packager.device.agent_zip import agent_name, agent_zip

DEADLINE = 120
_WHO = "import sys; print('%d.%d' % sys.version_info[:2]); print(sys.executable)"


def find_python(version):
    """A real interpreter of this version: on PATH, or among those that pyenv keeps. None when there is none."""
    name = f"python{version}"
    kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for path in [shutil.which(name), *sorted(kept.glob(f"{version}.*/bin/{name}"))]:
        if path is None:
            continue
        told = subprocess.run([path, "-c", _WHO], capture_output=True, text=True, check=False).stdout.split("\n")
        if told[0] == version:
            return told[1]
    return None


class Running:
    """A job under way. Its standard input stays open until `finish`, as the host's does."""

    def __init__(self, command, first_line, environment):
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        )
        with contextlib.suppress(BrokenPipeError):  # an agent that refuses may not read it all
            self.process.stdin.write(first_line)
            self.process.stdin.flush()
        self.documents = []

    def until(self, message):
        """Reads on until this progress is told."""
        for line in self.process.stdout:
            self.documents.append(json.loads(line))
            if message in self.documents[-1].get("message", ""):
                return
        raise AssertionError(f"{message!r} never came: {self.documents}, {self.process.stderr.read()!r}")

    def say(self, document):
        self.process.stdin.write(json.dumps(document).encode() + b"\n")
        self.process.stdin.flush()

    def children(self):
        """The process ids of the agent's own children."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == self.process.pid and fields[0] != "Z":
                found.append(int(stat.parent.name))
        return found

    def child(self):
        """The measuring process, once it is there."""
        for _ in range(DEADLINE * 100):
            if found := self.children():
                return found[0]
            time.sleep(0.01)
        raise AssertionError("no child was started")

    def finish(self):
        """The status and the last document; every line must be JSON, and standard error without a traceback."""
        out, talk = self.process.communicate(timeout=DEADLINE)
        self.documents += [json.loads(line) for line in out.splitlines()]
        assert b"Traceback" not in talk, talk.decode()
        return self.process.returncode, self.documents[-1] if self.documents else {}

    def end(self):
        """Ends the process that a failed test left."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


class Agent:
    """An interpreter, the zipapp and a folder: as much of a device as the agent sees."""

    def __init__(self, python, folder):
        self.python = python
        self.home = folder
        self.root = folder / ".edgepack"
        self.zip = folder / agent_name()
        self.zip.write_bytes(agent_zip())
        self.environment = {"HOME": str(folder), "PATH": os.environ["PATH"]}

    def start(self, *arguments, line):
        return Running([self.python, "-I", str(self.zip), *arguments], line, self.environment)

    def job(self, verb, **arguments):
        return self.start(
            verb, line=codec.dumps(Job("job-1", verb, str(self.root), arguments)).replace("\n", " ").encode() + b"\n"
        )

    def ask(self, verb, **arguments):
        """The result; a job that fails raises the error it sent."""
        running = self.job(verb, **arguments)
        try:
            status, last = running.finish()
        finally:
            running.end()
        if last.get("type") == "error":
            error = from_wire(last["error"])
            assert status == error.exit_code
            raise error
        assert (status, last["type"]) == (0, "result")
        return last["result"]

    def raw(self, line, *arguments):
        """The status and the last document after this very line."""
        running = self.start(*arguments, line=line)
        try:
            return running.finish()
        finally:
            running.end()

    def bring(self, bundle):
        """Puts a bundle where the host would."""
        incoming = self.root / "incoming"
        incoming.mkdir(parents=True, exist_ok=True)
        shutil.copy(bundle, incoming / bundle.name)
        return bundle.name

    def install(self, bundle, digest):
        return self.ask("install", file=self.bring(bundle), digest=digest)
