"""The gate before a bundle runs: an ordered list of checks, on this device. What fails one leaves everything as it was."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from pathlib import Path
from typing import Any, Callable, Collection, Dict, List, Optional, Tuple

from agent import features, launch, preparing, trust
from agent.contract import archive, codec
from agent.contract.errors import BudgetError, DeviceError, EdgepackError
from agent.contract.finding import WARNING, Finding
from agent.contract.manifest import Manifest
from agent.contract.report import Parity
from agent.contract.slot import Slot
from agent.slots import Slots
from agent.store import Store
from agent.wire import Wire


@dataclasses.dataclass
class Candidate:
    """A bundle that asks to run. `manifest` is there once its digest has been checked."""

    store: Store
    digest: str
    folder: Path
    wire: Wire
    manifest: Manifest


Check = Callable[[Candidate], List[Finding]]


def _digest(candidate: Candidate) -> List[Finding]:
    """Every file is what the manifest says, and the manifest what the digest says."""
    archive.verify_folder(candidate.folder, candidate.digest)
    return []


def _signature(candidate: Candidate) -> List[Finding]:
    """On a device that runs signed bundles only, somebody who is allowed signed it."""
    trust.require(candidate.store.root, candidate.folder, candidate.digest)
    return []


def _features(candidate: Candidate) -> List[Finding]:
    """This processor and this runtime can run it."""
    features.check_cpu(candidate.manifest)
    features.check_runtime(candidate.manifest)
    return []


def _golden(candidate: Candidate) -> List[Finding]:
    """It computes here what the original computed."""
    parity, findings = golden(candidate)
    if parity is None:
        advice = "build it again without --no-golden"
        return [*findings, Finding("no-golden", WARNING, "the bundle has no golden outputs: it ran, no more", advice)]
    if parity.verdict != "pass":
        bad = [one.name for one in parity.outputs if one.verdict != "pass"]
        raise BudgetError(
            "the bundle does not compute on this device what the original computed",
            where="%s: output %s" % (candidate.digest, ", ".join(bad)),
            expected="every golden sample within the bundle's tolerance",
            fix="edgepack bench shows by how much; another recipe may hold here",
            code="parity",
        )
    return findings


# In this order; a bundle is activated, and run by `run` and `agent.client`, only when all of those that apply have passed.
# The golden check runs the bundle, so whatever decides whether it may run at all comes before.
CHECKS: Tuple[Tuple[str, Check], ...] = (
    ("digest", _digest),
    ("signature", _signature),
    ("features", _features),
    ("golden", _golden),
)
RUNS_IT = frozenset({"golden"})


def golden(candidate: Candidate) -> Tuple[Optional[Parity], List[Finding]]:
    """The golden check's verdict, None where the bundle has no golden outputs and only ran; and what preparing found."""
    options: Dict[str, Any] = {"threads": 0, "provider": ""}
    store, manifest, folder = candidate.store, candidate.manifest, str(candidate.folder)
    prepared = preparing.prepare(manifest, folder, options, str(store.root), candidate.wire)
    candidate.wire.progress("running golden inputs")
    done = launch.in_child({"task": "check", "folder": folder, "options": prepared.options})
    parity: Optional[Parity] = codec.decode(Optional[Parity], done["parity"])  # type: ignore[arg-type]
    return parity, prepared.findings


def candidate(store: Store, digest: str, wire: Wire) -> Candidate:
    """The bundle, not checked yet. Raises DeviceError, code no-bundle, and what a manifest that cannot be read raises."""
    folder = store.get(digest)
    return Candidate(store, digest, folder, wire, archive.read_manifest_file(folder))


def admit(asking: Candidate, skip: Collection[str] = ()) -> Tuple[List[str], List[Finding]]:
    """The names of the checks that it passed, and what they found. Raises the first failure; its `where` names the check."""
    passed: List[str] = []
    findings: List[Finding] = []
    for name, check in CHECKS:
        if name in skip:
            continue
        asking.wire.progress("checking: %s" % name)
        try:
            findings += check(asking)
        except EdgepackError as error:
            error.where = "%s check of %s%s" % (name, asking.digest[:19], ": " + error.where if error.where else "")
            raise
        passed.append(name)
    return passed, findings


def switch(store: Store, slot: Slot, digest: str, wire: Wire, *, previous: Optional[str]) -> Dict[str, Any]:
    """Checks the bundle and makes it the slot's current one. The store's lock must be held."""
    start = time.perf_counter()
    passed, findings = admit(candidate(store, digest, wire))
    slots = Slots(store)
    staged = None if slot.staged == digest else slot.staged
    new = slots.change(slot, current=digest, previous=previous, staged=staged)
    store.touch(digest)
    _point_at_agent(store)
    return {
        "slot": codec.encode(new),
        "replaced": slot.current,
        "path": str(slots.path(slot.name)),
        "checks": passed,
        "seconds": time.perf_counter() - start,
        "findings": codec.encode(findings),
    }


def emptied(store: Store, slot: Slot) -> Dict[str, Any]:
    """Takes the current bundle out of the slot, and tells what `switch` tells. The store's lock must be held."""
    return {**unchanged(store, Slots(store).change(slot, current=None)), "replaced": slot.current}


def unchanged(store: Store, slot: Slot) -> Dict[str, Any]:
    """What `switch` tells, of a slot where there was nothing to do."""
    told = {"slot": codec.encode(slot), "replaced": slot.current, "path": str(Slots(store).path(slot.name))}
    return {**told, "checks": [], "seconds": 0.0, "findings": []}


def _point_at_agent(store: Store) -> None:
    """ROOT/agent/agent.pyz is the agent that activated last: a path that does not change, for applications."""
    own = Path(os.path.abspath(sys.argv[0]))
    place, part = own.with_name("agent.pyz"), own.with_name(".agent.pyz.part")
    if own.parent != store.root / "agent" or own == place:
        return  # not run from the store: a test, or by hand
    if os.path.lexists(str(part)):
        part.unlink()
    os.symlink(own.name, str(part))
    os.replace(str(part), str(place))


def kept(store: Store, job: str, result: Dict[str, Any]) -> Dict[str, Any]:
    """The result, written on the device before it is sent: a link that is cut now loses nothing. On a disk that is full it is
    sent all the same, for the change has been made.
    """
    try:
        store.keep_result(job, result)
    except DeviceError as error:
        note = Finding(
            "result-not-kept", WARNING, "the result could not be kept on the device: %s" % error.what, error.fix
        )
        result["findings"].append(codec.encode(note))
    return result
