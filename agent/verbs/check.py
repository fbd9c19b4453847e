"""The golden check: does this device compute what the original computed?"""

from __future__ import annotations

from typing import Any, Dict

from agent import features, launch, preparing, trust
from agent.contract import archive, codec
from agent.contract.job import CheckOptions, Job
from agent.store import Store
from agent.wire import Wire


def run(job: Job, wire: Wire) -> Dict[str, Any]:
    """`arguments`: CheckOptions. Every file's digest is checked first."""
    options = codec.decode(CheckOptions, job.arguments, "$.arguments")
    store = Store(job.root)
    folder = store.get(options.digest)
    wire.progress("verifying digests")
    manifest = archive.verify_folder(folder, options.digest)
    trust.require(store.root, folder, options.digest)
    features.check_cpu(manifest)
    features.check_runtime(manifest)
    options_ = {"threads": options.threads, "provider": options.provider}
    prepared = preparing.prepare(manifest, str(folder), options_, str(store.root), wire)
    wire.progress("running golden inputs")
    task = {
        "task": "check",
        "folder": str(folder),
        "options": prepared.options,
        "tolerance": codec.encode(options.tolerance),
    }
    result: Dict[str, Any] = launch.in_child(task)
    return result
