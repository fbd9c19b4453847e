"""Hands over results that were written here but never reached the host, and forgets them once the host says so."""

from __future__ import annotations

from typing import Any, Dict

from agent.contract.job import Job
from agent.store import Store
from agent.wire import Wire


def run(job: Job, wire: Wire) -> Dict[str, Any]:
    """`arguments`: job (its result is returned; none: only the list), forget (job ids that the host has stored)."""
    del wire
    store = Store(job.root)
    for name in job.arguments.get("forget", []):
        store.forget_result(str(name))
    wanted = job.arguments.get("job")
    return {"kept": store.kept_results(), "result": store.read_result(str(wanted)) if wanted else None}
