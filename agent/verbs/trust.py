"""Shows or sets whose bundles may run here."""

from __future__ import annotations

from typing import Any, Dict

from agent import trust
from agent.contract import codec, signatures
from agent.contract.errors import DeviceError
from agent.contract.job import Job
from agent.store import Store
from agent.wire import Wire


def run(job: Job, wire: Wire) -> Dict[str, Any]:
    """`arguments`: trust (a Trust document; none: it is only shown). Tells also which ssh-keygen would verify."""
    del wire
    store = Store(job.root)
    wanted = job.arguments.get("trust")
    if wanted is not None:
        with store.locked():
            trust.save(store.root, codec.decode(signatures.Trust, wanted, "$.arguments.trust"))
    try:
        program, problem = signatures.find_ssh_keygen(), ""
    except DeviceError as error:
        program, problem = "", error.what
    return {"trust": codec.encode(trust.load(store.root)), "ssh_keygen": program, "problem": problem}
