"""Deletes a bundle."""

from __future__ import annotations

from typing import Any, Dict

from agent.contract.job import Job
from agent.store import Store
from agent.wire import Wire


def run(job: Job, wire: Wire) -> Dict[str, Any]:
    """`arguments`: digest."""
    del wire
    digest = str(job.arguments["digest"])
    return {"digest": digest, "freed_bytes": Store(job.root).remove(digest)}
