"""Is everything that is stored here whole, and does it compute what it must?"""

from __future__ import annotations

from typing import Any, Dict, List

from agent import activation
from agent.contract import codec
from agent.contract.errors import DeviceError, EdgepackError, to_wire
from agent.contract.job import Job
from agent.slots import Slots
from agent.store import Store
from agent.wire import Wire


def run(job: Job, wire: Wire) -> Dict[str, Any]:
    """`arguments`: slot ("": all that is stored). A row for each bundle, with its error if it has one; nothing is changed."""
    store, only = Store(job.root), str(job.arguments.get("slot") or "")
    slots = Slots(store)
    problems: List[Dict[str, Any]] = []
    held: Dict[str, List[str]] = {}
    for name in [only] if only else slots.names():
        try:
            slot = slots.get(name)
        except EdgepackError as error:
            problems.append({"slot": name, "error": _told(error)})
            continue
        for role in ("current", "previous", "staged"):
            if getattr(slot, role):
                held.setdefault(getattr(slot, role), []).append("%s %s" % (name, role))
    if only and not held and not problems:
        raise DeviceError(
            "the slot %r holds no bundle" % only,
            expected="one of: %s" % ", ".join(slots.names()) if slots.names() else "",
            fix="edgepack push BUNDLE DEVICE --slot %s" % only,
            code="empty-slot",
        )
    digests = list(held) if only else [*dict.fromkeys([*held, *store.order()])]
    rows = [{**_check(store, digest, wire), "slots": held.get(digest, [])} for digest in digests]
    return {"bundles": rows, "problems": problems}


def _check(store: Store, digest: str, wire: Wire) -> Dict[str, Any]:
    row: Dict[str, Any] = {"bundle": digest, "name": "", "checks": [], "error": None, "findings": []}
    try:
        asking = activation.candidate(store, digest, wire)
        row["name"] = asking.manifest.name
        row["checks"], findings = activation.admit(asking)
        row["findings"] = codec.encode(findings)
    except EdgepackError as error:
        row["error"] = _told(error)
    return row


def _told(error: EdgepackError) -> Dict[str, Any]:
    return {**to_wire(error), "exit_code": error.exit_code}
