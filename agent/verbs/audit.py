"""What changed this device, and who asked for it."""

from __future__ import annotations

from typing import Any, Dict

from agent import audit
from agent.contract.job import Job
from agent.store import Store
from agent.wire import Wire


def run(job: Job, wire: Wire) -> Dict[str, Any]:
    """`arguments`: last (how many records)."""
    del wire
    return {"entries": audit.entries(Store(job.root).root, min(10000, max(1, int(job.arguments.get("last", 100)))))}
