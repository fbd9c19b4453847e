"""Deletes a bundle, and what was built from it."""

from __future__ import annotations

from typing import Any, Dict

from agent import pruning
from agent.contract.job import Job
from agent.store import Store
from agent.wire import Wire


def run(job: Job, wire: Wire) -> Dict[str, Any]:
    """`arguments`: digest."""
    del wire
    digest = str(job.arguments["digest"])
    return {"digest": digest, "freed_bytes": pruning.remove(Store(job.root), digest)}
