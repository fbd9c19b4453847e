"""What a fleet has done, so that one that was interrupted goes on where it stopped: JSON lines in the user's state folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from agent.contract.errors import UsageError


class Journal:
    """The journal of one piece of work, known by `work`: the same verb, bundle, options and devices have the same journal."""

    def __init__(self, work: Any, folder: Path | None = None) -> None:
        if folder is None:
            import platformdirs

            folder = platformdirs.user_state_path("edgepack") / "fleet"
        text = json.dumps(work, sort_keys=True, default=str)
        self.path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.jsonl"

    def done(self) -> dict[str, Any]:
        """The results by device; a later None takes one back. A line that a power cut left half written is work not done."""
        found: dict[str, Any] = {}
        with contextlib.suppress(FileNotFoundError):
            for line in self.path.read_bytes().splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    record = json.loads(line)
                    found[record["device"]] = record["result"]
        return {name: result for name, result in found.items() if result is not None}

    def start(self, *, resume: bool) -> dict[str, Any]:
        """What need not be done again: nothing, unless this resumes. Raises UsageError where it cannot be written."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not resume:
                self.path.write_bytes(b"")
        except OSError as error:
            raise UsageError(f"the fleet's journal cannot be written: {error}", where=str(self.path)) from error
        return self.done()

    def add(self, device: str, result: Any) -> None:
        """This device is done, on the disk when this returns."""
        line = json.dumps({"device": device, "result": result}, allow_nan=False).encode() + b"\n"
        try:
            with self.path.open("ab+") as file:
                size = file.tell()
                if size:
                    file.seek(size - 1)
                    if file.read(1) != b"\n":
                        file.write(b"\n")
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UsageError(f"the fleet's journal cannot be written: {error}", where=str(self.path)) from error

    def finish(self) -> None:
        """All of it is done."""
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
