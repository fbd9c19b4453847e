"""One step in a process of its own, perhaps under another interpreter: JSON in, JSON out.

A worker is a file in `packager/workers/` that imports nothing of edgepack, so that it runs where only its converter is
installed. It reads one JSON document from standard input and writes one to the file that the document names as `result`;
what it prints is kept and shown when it fails.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.contract.errors import ConvertError

WORKERS = Path(__file__).parent / "workers"
_TAIL = 2000


def run_worker(
    name: str, task: Mapping[str, Any], *, python: str = "", what: str = "", deadline: float = 3600.0
) -> dict[str, Any]:
    """The worker's document. `what` names the step in errors; `deadline` is in seconds.

    Raises ConvertError, code "worker-failed", with the worker's last words; a worker that answers {"error": ...} is a
    ConvertError with the code that it gives.
    """
    with tempfile.TemporaryDirectory(prefix="edgepack-worker-") as folder:
        answer = Path(folder) / "answer.json"
        document = json.dumps({**task, "result": str(answer)}).encode()
        argv = [python or sys.executable, "-I", str(WORKERS / f"{name}.py")]
        try:
            done = subprocess.run(argv, input=document, capture_output=True, timeout=deadline, check=False)
        except subprocess.TimeoutExpired as error:
            raise ConvertError(f"{what or name} did not end within {deadline:.0f} s", code="worker-timeout") from error
        talk = (done.stdout + done.stderr).decode("utf-8", "replace").strip()
        if done.returncode or not answer.exists():
            died = f"died of signal {-done.returncode}" if done.returncode < 0 else f"ended with {done.returncode}"
            raise ConvertError(f"{what or name} {died}", where=talk[-_TAIL:], code="worker-failed")
        found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    if "error" in found:
        raise ConvertError(
            f"{what or name}: {found['error']}", where=talk[-_TAIL:], code=found.get("code", "worker-failed")
        )
    return {**found, "talk": talk}
