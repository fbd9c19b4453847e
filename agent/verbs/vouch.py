"""Takes signatures for a bundle that is here: they count for nothing until they are verified."""

from __future__ import annotations

from typing import Any, Dict

from agent.contract import archive, codec
from agent.contract.errors import IntegrityError
from agent.contract.job import Job
from agent.contract.signatures import MAX_SIGNATURES
from agent.disk import disk_errors
from agent.store import Store
from agent.wire import Wire


def run(job: Job, wire: Wire) -> Dict[str, Any]:
    """`arguments`: digest, signatures (entry name to text). Tells the names of all that are there then."""
    del wire
    store = Store(job.root)
    found = codec.decode(Dict[str, str], job.arguments["signatures"], "$.arguments.signatures")
    with store.locked():
        folder = store.get(str(job.arguments["digest"]))
        names = {*archive.read_signatures(folder), *found}
        if len(names) > MAX_SIGNATURES:
            what = "%d signatures for one bundle" % len(names)
            raise IntegrityError(what, where=str(folder), expected="at most %d" % MAX_SIGNATURES)
        with disk_errors(folder):
            archive.write_signatures(folder, {name: text.encode("utf-8") for name, text in found.items()})
    return {"signatures": sorted(names)}
