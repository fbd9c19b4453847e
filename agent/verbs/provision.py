"""Unpacks wheels that the host brought into edgepack's own folder."""

from __future__ import annotations

from typing import Any, Dict

from agent import site
from agent.contract.job import Job
from agent.store import Store
from agent.wire import Wire


def run(job: Job, wire: Wire) -> Dict[str, Any]:
    """`arguments`: key (of the set), wheels (file in the incoming folder, sha256). The wheels are deleted whatever happens."""
    store = Store(job.root)
    wheels = [{"file": str(one["file"]), "sha256": str(one["sha256"])} for one in job.arguments["wheels"]]
    wire.progress("unpacking %d wheels" % len(wheels))
    try:
        folder = site.install(store, str(job.arguments["key"]), wheels)
    finally:
        for one in wheels:
            path = store.incoming / one["file"].rpartition("/")[2]
            if path.exists():
                path.unlink()
    return {"folder": str(folder)}
