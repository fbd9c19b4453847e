"""Has the device for a while, gives it back, or says who has it."""

from __future__ import annotations

from typing import Any, Dict

from agent import turn
from agent.contract.job import Job
from agent.store import Store
from agent.wire import Wire


def run(job: Job, wire: Wire) -> Dict[str, Any]:
    """`arguments`: owner, seconds (takes it), release (gives it back), force. None of them: only tells."""
    del wire
    store, owner = Store(job.root), str(job.arguments.get("owner", ""))
    with store.locked():
        if "seconds" in job.arguments:
            turn.take(store.root, owner, float(job.arguments["seconds"]))
        elif job.arguments.get("release"):
            turn.release(store.root, owner, force=job.arguments.get("force") is True)
    return {"lease": turn.lease(store.root), "queue": turn.waiting(store.root)}
