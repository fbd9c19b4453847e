"""Takes what is missing of a bundle from standard input, and stages the bundle."""

from __future__ import annotations

from typing import Any, Dict, List

from agent import features
from agent.contract import codec
from agent.contract.errors import DeviceError, IntegrityError
from agent.contract.finding import WARNING, Finding
from agent.contract.job import Job
from agent.contract.manifest import parse_manifest
from agent.contract.transfer import ReceiveOptions
from agent.disk import disk_errors
from agent.receiving import Receiver
from agent.slots import Slots
from agent.store import Store
from agent.wire import Wire, read_stream

STREAMS = True  # standard input goes on with the files' frames


def run(job: Job, wire: Wire) -> Dict[str, Any]:
    """`arguments`: ReceiveOptions. Nothing is visible before the whole bundle is checked and on the disk."""
    options = codec.decode(ReceiveOptions, job.arguments, "$.arguments")
    raw = options.manifest.encode("utf-8")
    manifest = parse_manifest(raw)
    features.check_cpu(manifest)
    store = Store(job.root)
    listed = {entry.sha256 for entry in manifest.files.values()}
    receiver = Receiver(store.blobs, read_stream())
    for coming in options.coming:
        if coming.sha256 not in listed:
            raise IntegrityError("a file that the bundle does not list", where=coming.sha256, code="transfer")
        with disk_errors(store.root):
            receiver.take(coming)
    wire.progress("staging on the device")
    digest = store.stage(raw, {coming.sha256 for coming in options.coming})
    if options.slot:
        slots = Slots(store)
        with store.locked():
            slot = slots.get(options.slot)
            if digest not in (slot.current, slot.staged):
                slots.change(slot, staged=digest)
    findings: List[Finding] = []
    try:
        features.check_runtime(manifest)
    except DeviceError as error:
        findings.append(Finding("runtime-missing", WARNING, error.what, error.fix))
    return {"bundle": digest, "copied_bytes": receiver.copied, "findings": codec.encode(findings)}
