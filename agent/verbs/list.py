"""The bundles on this device."""

from __future__ import annotations

from typing import Any, Dict

from agent.contract.job import Job
from agent.slots import Slots
from agent.store import Store
from agent.wire import Wire


def run(job: Job, wire: Wire) -> Dict[str, Any]:
    """Digest, name, target, runtime and size of each, and the slots that hold it."""
    del wire
    store = Store(job.root)
    held = Slots(store).held()
    return {"bundles": [{**row, "slots": held.get(row["digest"], [])} for row in store.list()]}
