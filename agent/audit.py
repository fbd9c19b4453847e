"""What changed this device, who asked for it, and how it ended: ROOT/audit.jsonl."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

from agent.contract import audit
from agent.contract.errors import DeviceError, EdgepackError
from agent.contract.job import Job
from agent.disk import disk_errors
from agent.wire import Wire

# The verbs that change what runs here, or may run.
RECORDED = frozenset(
    {"install", "receive", "activate", "rollback", "remove", "prune", "trust", "vouch", "quota", "provision"}
)
# These must work on a disk that is full, too: they are what frees it.
_FREEING = frozenset({"remove", "prune"})
_MOST = 100  # digests in one record


@contextlib.contextmanager
def recorded(job: Job, wire: Wire) -> Iterator[Callable[[Any], None]]:
    """Writes that the verb begins, then how it ended. The caller hands over the result; what is only asked is no event."""
    told: Dict[str, Any] = {}
    if job.verb not in RECORDED or (job.verb == "trust" and "trust" not in job.arguments):
        yield lambda _: None
        return
    _write(job, wire, "begun", _facts(job.arguments), surely=job.verb not in _FREEING)
    try:
        yield lambda result: told.update(_facts(result))
    except EdgepackError as error:
        _write(job, wire, "failed", {**_facts(job.arguments), "code": error.code or type(error).__name__})
        raise
    except BaseException as error:
        _write(job, wire, "failed", {**_facts(job.arguments), "code": type(error).__name__})
        raise
    _write(job, wire, "done", {**_facts(job.arguments), **told})


def entries(root: Path, last: int) -> List[Dict[str, Any]]:
    """The last records, the oldest first."""
    with disk_errors(root):
        return audit.read(root / "audit.jsonl", last)


def _write(job: Job, wire: Wire, outcome: str, facts: Dict[str, Any], surely: bool = False) -> None:
    peer = os.environ.get("SSH_CONNECTION", "").split(" ")[0]
    record = {"at": time.time(), "event": job.verb, "outcome": outcome, "who": job.who[:200], "from": peer[:64]}
    root = Path(os.path.expanduser(job.root))
    try:
        with disk_errors(root):
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            audit.append(root / "audit.jsonl", {**record, "job": job.id[:64], **facts})
    except DeviceError as error:
        if surely:
            raise
        wire.progress("the audit log could not be written: %s" % error.what)


def _facts(source: Any) -> Dict[str, Any]:
    """Which bundle, which slot: from a verb's arguments or its result."""
    if not isinstance(source, dict):
        return {}
    found: Dict[str, Any] = {}
    if isinstance(source.get("manifest"), str):
        found["digest"] = "sha256:" + hashlib.sha256(source["manifest"].encode("utf-8", "replace")).hexdigest()
    for key in ("digest", "bundle"):
        if isinstance(source.get(key), str) and source[key]:
            found["digest"] = source[key][:80]
    slot = source.get("slot")
    if isinstance(slot, dict):  # an activation's result
        found["slot"], found["digest"] = str(slot.get("name"))[:80], str(slot.get("current"))[:80]
    elif isinstance(slot, str) and slot:
        found["slot"] = slot[:80]
    if isinstance(source.get("replaced"), str):
        found["replaced"] = source["replaced"][:80]
    if isinstance(source.get("removed"), list):
        found["removed"] = [str(one)[:80] for one in source["removed"][:_MOST]]
    trust = source.get("trust")
    if isinstance(trust, dict):
        found["signed_only"] = trust.get("signed_only") is True
    return found
