"""Deletes a bundle, and what was built from it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Dict, List

from agent.contract import archive
from agent.contract.errors import IntegrityError, UsageError
from agent.contract.job import Job
from agent.disk import disk_errors
from agent.store import Store
from agent.wire import Wire


def run(job: Job, wire: Wire) -> Dict[str, Any]:
    """`arguments`: digest."""
    del wire
    digest = str(job.arguments["digest"])
    store = Store(job.root)
    built = _built(store, digest)
    freed = store.remove(digest)
    for folder in built:
        freed += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        with disk_errors(folder):
            shutil.rmtree(str(folder))
    return {"digest": digest, "freed_bytes": freed}


def _built(store: Store, digest: str) -> List[Path]:
    """The folders of engines that runners built and keep under the model file's digest."""
    try:
        manifest = archive.read_manifest_file(store.get(digest))
    except (IntegrityError, UsageError):
        return []  # a bundle that cannot be read is removed all the same; what was built from it is unknown
    return sorted((store.root / "cache").glob("*/" + manifest.files[manifest.model].sha256[:32]))
