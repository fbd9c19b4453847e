"""The parent's side of a process that stays (`agent.serving`): ask, wait, and turn its death into an error."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from typing import Any, Dict, List

from agent import launch, site
from agent.contract.errors import DeviceError, from_wire


class Living:
    """One such process. Use it in a `with` statement: it does not outlive it."""

    def __init__(self, task: Dict[str, Any]) -> None:
        try:
            self._scratch = tempfile.mkdtemp(prefix="edgepack-")
        except OSError as error:
            raise launch.no_scratch(error) from error
        self._process = subprocess.Popen(
            [sys.executable, "-I", sys.argv[0], "_child", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "TMPDIR": self._scratch},
        )
        self._talk: List[bytes] = []
        self._listener = threading.Thread(target=launch.keep_talk, args=(self._process, self._talk), daemon=True)
        self._listener.start()
        self.say({**task, "path": site.added()})

    def __enter__(self) -> "Living":  # noqa: PYI034, UP037 - typing.Self is newer than 3.8
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def say(self, document: Dict[str, Any]) -> None:
        """Sends one line. A process that is dead says why in `hear`."""
        stdin: Any = self._process.stdin
        with contextlib.suppress(BrokenPipeError):
            stdin.write(json.dumps(document).encode("utf-8") + b"\n")
            stdin.flush()

    def hear(self) -> Dict[str, Any]:
        """Its next answer. Raises what it raised, or DeviceError when it died."""
        stdout: Any = self._process.stdout
        for line in stdout:
            document: Dict[str, Any] = json.loads(line)
            if document.get("type") == "error":
                raise from_wire(document["error"])
            if document.get("type") != "progress":
                return document
        self._process.wait()
        self._listener.join()
        raise launch.death(self._process.returncode, b"".join(self._talk))

    def block(self, runs: int, lead: int) -> List[int]:
        """`runs` timed inferences after `lead` others, in nanoseconds."""
        self.say({"runs": runs, "lead": lead})
        samples: List[int] = self.hear()["samples_ns"]
        if len(samples) != runs:
            raise DeviceError("%d samples were asked for, %d came" % (runs, len(samples)), code="child-failed")
        return samples
