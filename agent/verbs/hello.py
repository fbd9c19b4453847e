"""Who the agent is and which bundles are here."""

from __future__ import annotations

import platform
from typing import Any, Dict

from agent.contract.job import Job
from agent.store import Store
from agent.version import __version__
from agent.wire import Wire


def run(job: Job, wire: Wire) -> Dict[str, Any]:
    """Agent and Python version, the store's folder, the digests in it, results that were never fetched."""
    del wire
    store = Store(job.root)
    return {
        "agent": __version__,
        "python": platform.python_version(),
        "root": str(store.root),
        "bundles": [row["digest"] for row in store.list()],
        "kept_results": store.kept_results(),
    }
