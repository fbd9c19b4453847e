"""Which of these chunks are in files that are here."""

from __future__ import annotations

from typing import Any, Dict

from agent.contract.errors import UsageError
from agent.contract.job import Job
from agent.store import Store
from agent.wire import Wire


def run(job: Job, wire: Wire) -> Dict[str, Any]:
    """`arguments`: chunks, the sha256 of each as hex digits, one after the other. The answer has a 1 or a 0 for each."""
    del wire
    try:
        raw = bytes.fromhex(str(job.arguments["chunks"]))
    except ValueError as error:
        raise UsageError("not hex digits: %s" % error) from error
    known = {digest for digest, _ in Store(job.root).blobs.chunks()}
    return {"known": "".join("01"[raw[at : at + 32] in known] for at in range(0, len(raw), 32))}
