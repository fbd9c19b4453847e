"""The bundles on this device."""

from __future__ import annotations

from typing import Any, Dict

from agent.contract.job import Job
from agent.store import Store
from agent.wire import Wire


def run(job: Job, wire: Wire) -> Dict[str, Any]:
    """Digest, name, target, runtime and size of each."""
    del wire
    return {"bundles": Store(job.root).list()}
