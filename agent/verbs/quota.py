"""How much edgepack's folder may hold on this device."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict

from agent import settings
from agent.contract.errors import UsageError
from agent.contract.job import Job
from agent.store import Store
from agent.wire import Wire


def run(job: Job, wire: Wire) -> Dict[str, Any]:
    """`arguments`: set (bytes, or null for none; left out: the quota stays as it is)."""
    del wire
    store = Store(job.root)
    if "set" in job.arguments:
        wanted = job.arguments["set"]
        if wanted is not None and (type(wanted) is not int or wanted < 0):
            raise UsageError("not a number of bytes: %.100r" % (wanted,))
        with store.locked():
            settings.save(store.root, dataclasses.replace(settings.load(store.root), quota_bytes=wanted))
    return {"quota_bytes": settings.load(store.root).quota_bytes, "used_bytes": store.used()}
