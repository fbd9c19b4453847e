"""Is it right, and how fast is it? Golden check first, then rounds in fresh processes."""

from __future__ import annotations

import time
from typing import Any, Dict, List, Optional

from agent import clocks, features, launch, preparing, trust, turn
from agent.contract import archive, codec
from agent.contract.job import BenchOptions, Job
from agent.contract.report import Parity, Report, Round, RuntimeUsed
from agent.measure import stability
from agent.probes import cpu, reading
from agent.store import Store
from agent.wire import Wire


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
    run_options = prepared.options
    rounds: List[Round] = []
    with clocks.locked(str(store.root), wanted=options.lock_clocks):
        checked = launch.in_child({"task": "check", "folder": str(folder), "options": run_options})
        for index in range(options.rounds):
            count = share(options.runs, options.rounds, index)
            if count == 0:
                continue
            wire.progress("round %d of %d" % (index + 1, options.rounds))
            task = _round_task(options, str(folder), run_options, count)
            rounds.append(codec.decode(Round, launch.in_child(task)))
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
            threads=options.threads,
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
        findings=[*manifest.findings, *prepared.findings, *busy, *stability.findings(rounds, parity, manifest)],
    )
    store.keep_result(job.id, report)
    return report


def share(runs: Optional[int], rounds: int, index: int) -> Optional[int]:
    """How many of `runs` inferences round `index` takes; None when time decides."""
    if runs is None:
        return None
    return runs // rounds + (1 if index < runs % rounds else 0)


def _round_task(
    options: BenchOptions, folder: str, run_options: Dict[str, Any], count: Optional[int]
) -> Dict[str, Any]:
    return {
        "task": "round",
        "folder": folder,
        "options": run_options,
        "seconds": options.seconds / options.rounds,
        "runs": count,
        "warmup_seconds": options.warmup_seconds,
        "warmup_runs": options.warmup_runs,
    }
