"""What of a bundle is missing here; changes nothing, but for damaged files where a repair is asked for."""

from __future__ import annotations

import shutil
from typing import Any, Dict

from agent import features
from agent.contract import archive, codec
from agent.contract.job import Job
from agent.contract.manifest import manifest_digest, parse_manifest
from agent.contract.transfer import Coming
from agent.slots import Slots
from agent.store import Store
from agent.wire import Wire


def run(job: Job, wire: Wire) -> Dict[str, Any]:
    """`arguments`: manifest (its text), slot (or ""), repair (read all that is here, and ask for what is damaged).

    Raises DeviceError for a bundle that this processor cannot run, or that has no space, before any of it is sent.
    """
    raw = str(job.arguments["manifest"]).encode("utf-8")
    digest, manifest = manifest_digest(raw), parse_manifest(raw)
    store = Store(job.root)
    for name in manifest.files:
        archive.check_name(name, digest)
    features.check_cpu(manifest)
    whole = store.has(digest)
    if job.arguments.get("repair"):
        wire.progress("reading what is there")
        whole = whole and not store.damaged(digest)
    missing = []
    if not whole:
        for sha256, size in sorted({(entry.sha256, entry.size) for entry in manifest.files.values()}):
            if not store.blobs.has(sha256, size):
                missing.append(Coming(sha256, size, store.blobs.arrived(sha256, size)))
        store.need_space(sum(one.size - one.have for one in missing))
    slot = str(job.arguments.get("slot") or "")
    return {
        "bundle": digest,
        "whole": whole,
        "missing": codec.encode(missing),
        "indexed": store.blobs.indexed(),
        "slot": codec.encode(Slots(store).get(slot)) if slot else None,
        "free_bytes": shutil.disk_usage(str(store.root)).free,
    }
