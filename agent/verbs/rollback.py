"""Returns a slot to the bundle that it had before."""

from __future__ import annotations

from typing import Any, Dict

from agent import activation
from agent.contract.errors import DeviceError
from agent.contract.job import Job
from agent.slots import Slots
from agent.store import Store
from agent.wire import Wire


def run(job: Job, wire: Wire) -> Dict[str, Any]:
    """`arguments`: slot; leaving (a digest, or ""): a slot that does not run this one stays as it is, so asking twice is no
    harm; emptying: a slot that had nothing before has nothing again, in the place of an error. The bundle that is left is no
    longer `previous`: a second rollback must not bring it back.
    """
    store = Store(job.root)
    with store.working(job.id), store.locked():
        slot = Slots(store).get(str(job.arguments["slot"]))
        leaving = str(job.arguments.get("leaving") or "")
        if leaving and slot.current != leaving:
            return activation.unchanged(store, slot)
        if slot.previous is None and job.arguments.get("emptying"):
            return activation.kept(store, job.id, activation.emptied(store, slot))
        if slot.previous is None:
            raise DeviceError(
                "the slot %r has no previous bundle" % slot.name,
                where="it holds %s" % (slot.current or "nothing"),
                fix="activate one by name: edgepack activate DEVICE --slot %s --bundle DIGEST" % slot.name,
                code="no-previous",
            )
        result = activation.switch(store, slot, slot.previous, wire, previous=None)
        return activation.kept(store, job.id, result)
