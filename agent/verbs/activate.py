"""Makes a bundle the current one of a slot, if it passes every check on this device."""

from __future__ import annotations

from typing import Any, Dict

from agent import activation
from agent.contract.errors import DeviceError
from agent.contract.job import Job
from agent.slots import Slots
from agent.store import Store
from agent.wire import Wire


def run(job: Job, wire: Wire) -> Dict[str, Any]:
    """`arguments`: slot, digest ("": the one that was staged for the slot). The old one stays until the new has passed."""
    store = Store(job.root)
    with store.working(job.id), store.locked():
        slot = Slots(store).get(str(job.arguments["slot"]))
        digest = str(job.arguments.get("digest") or slot.staged or "")
        if not digest:
            raise DeviceError(
                "nothing is staged for the slot %r" % slot.name,
                where="it holds %s" % (slot.current or "nothing"),
                fix="name a bundle: --bundle DIGEST (edgepack devices list-bundles DEVICE), or push one",
                code="nothing-staged",
            )
        previous = slot.previous if slot.current == digest else slot.current
        result = activation.switch(store, slot, digest, wire, previous=previous)
        return activation.kept(store, job.id, result)
