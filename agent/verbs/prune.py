"""Deletes the bundles that nobody needs any more."""

from __future__ import annotations

from typing import Any, Dict

from agent import pruning
from agent.contract.job import Job
from agent.store import Store
from agent.wire import Wire


def run(job: Job, wire: Wire) -> Dict[str, Any]:
    """`arguments`: keep, how many of those that no slot holds stay."""
    del wire
    return pruning.prune(Store(job.root), int(job.arguments["keep"]))
