"""Is it right, and how fast is it? Golden check first, then rounds in fresh processes."""

from __future__ import annotations

import time
from typing import Any, Dict, List, Optional

from agent import clocks, features, launch, measuring, preparing, trust, turn
from agent.contract import archive, codec
from agent.contract.finding import WARNING, Finding
from agent.contract.job import BenchOptions, Job
from agent.contract.report import Parity, Report, RuntimeUsed
from agent.measure import stability
from agent.probes import cpu, reading
from agent.store import Store
from agent.wire import Wire

_NAMED = 8


def run(job: Job, wire: Wire) -> Report:
    """`arguments`: BenchOptions. The report is written on the device before it is sent; nobody else measures meanwhile."""
    options = codec.decode(BenchOptions, job.arguments, "$.arguments")
    store = Store(job.root)
    with store.working(job.id), turn.mine(store.root, job.who or job.id, options.wait_seconds, wire):
        return _measured(job, options, store, wire)


def _measured(job: Job, options: BenchOptions, store: Store, wire: Wire) -> Report:
    folder = store.get(options.digest)
    manifest = archive.verify_folder(folder, options.digest)
    trust.require(store.root, folder, options.digest)
    features.check_cpu(manifest)
    features.check_runtime(manifest)
    started = time.time()
    busy = stability.busy(reading.take().load_1min, cpu.cores())
    run_options = {"threads": options.threads, "provider": options.provider}
    wire.progress("running golden inputs")
    prepared = preparing.prepare(manifest, str(folder), run_options, str(store.root), wire)
    with clocks.locked(str(store.root), wanted=options.lock_clocks):
        checked = launch.in_child({"task": "check", "folder": str(folder), "options": prepared.options})
        measured = measuring.measure(options, str(folder), prepared.options, wire)
    rounds = measured.rounds
    parity: Optional[Parity] = codec.decode(Optional[Parity], checked["parity"])  # type: ignore[arg-type]
    report = Report(
        job=job.id,
        bundle=options.digest,
        name=manifest.name,
        target=manifest.target,
        recipe=str(manifest.recipe.get("name", "")),
        runtime=RuntimeUsed(
            name=manifest.runtime.name,
            version=checked["version"],
            provider=checked["provider"],
            threads=measured.threads,
            placement=checked["placement"],
            session_options=manifest.session_options,
        ),
        parity=parity,
        rounds=rounds,
        facts=reading.facts(str(store.root)),
        model_bytes=archive.model_bytes(manifest),
        bundle_bytes=sum(entry.size for entry in manifest.files.values()) + len(manifest.to_bytes()),
        source_bytes=manifest.source.size_bytes,
        started_unix=started,
        findings=[
            *manifest.findings,
            *prepared.findings,
            *busy,
            *elsewhere(checked),
            *stability.findings(rounds, parity, manifest),
        ],
        protocol=measured.protocol,
        profile=measured.profile,
    )
    store.keep_result(job.id, report)
    return report


def elsewhere(checked: Dict[str, Any]) -> List[Finding]:
    """Nodes that ran on another provider than the one asked for, by name: none at all on it is an error already."""
    names = checked.get("elsewhere") or []
    if not names:
        return []
    count = sum(checked["placement"].values())
    more = " and %d more" % (len(names) - _NAMED) if len(names) > _NAMED else ""
    text = "%d of %d nodes did not run on %s: %s%s" % (
        len(names),
        count,
        checked["provider"],
        "; ".join(names[:_NAMED]),
        more,
    )
    return [Finding("nodes-elsewhere", WARNING, text, "each change of provider copies: replace these operators")]
