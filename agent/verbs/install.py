"""Takes a bundle file that has arrived into the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List

from agent import features
from agent.contract import archive, codec
from agent.contract.errors import DeviceError
from agent.contract.finding import WARNING, Finding
from agent.contract.job import Job
from agent.store import Store
from agent.wire import Wire


def run(job: Job, wire: Wire) -> Dict[str, Any]:
    """`arguments`: file (in the store's incoming folder), digest. The file is deleted whatever happens."""
    store = Store(job.root)
    package = store.incoming / Path(str(job.arguments["file"])).name
    try:
        wire.progress("verifying on the device")
        with archive.BundleReader(package) as reader:
            features.check_cpu(reader.manifest)
        manifest = store.install(package, str(job.arguments["digest"]))
    finally:
        if package.exists():
            package.unlink()
    findings: List[Finding] = []
    try:
        features.check_runtime(manifest)
    except DeviceError as error:
        findings.append(Finding("runtime-missing", WARNING, error.what, error.fix))
    return {"digest": job.arguments["digest"], "name": manifest.name, "findings": codec.encode(findings)}
