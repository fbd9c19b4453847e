"""Which of two bundles is faster here? Rounds of two fresh processes side by side, in blocks A B B A."""

from __future__ import annotations

import time
from typing import Any, Dict, List, Optional, Tuple

from agent import features, launch, preparing, trust, turn
from agent.contract import archive, codec
from agent.contract.finding import Finding
from agent.contract.job import Job
from agent.contract.manifest import Manifest
from agent.contract.pairing import Pairing, PairOptions, PairRound, PairSide, Quad
from agent.contract.report import Parity, RuntimeUsed
from agent.living import Living
from agent.measure import stability
from agent.probes import cpu, reading
from agent.store import Store
from agent.wire import Wire

_LEAST_SECONDS, _MOST_SECONDS = 12.0, 48.0
_WAIT = 600.0  # seconds, for whoever has the device now
_SAMPLES = 2400  # of each side: what the default time is to hold, unless it is too short or too long for that
_LEAST_SAMPLES = 48  # of each side, however slow the models are
_LEAST_BLOCK = 3
_LEAD = 1
_LEAST_QUADS = 2  # one alone shows nothing of how much they scatter
_WANTED_QUADS = (
    8  # where others hold the cores, blocks wait for their turn: then up to twice the time is taken for them
)


def run(job: Job, wire: Wire) -> Pairing:
    """`arguments`: PairOptions. Both bundles are checked first. The result is written on the device before it is sent."""
    options = codec.decode(PairOptions, job.arguments, "$.arguments")
    store = Store(job.root)
    with store.working(job.id), turn.mine(store.root, job.who or job.id, _WAIT, wire):
        return _measured(job, options, store, wire)


def _measured(job: Job, options: PairOptions, store: Store, wire: Wire) -> Pairing:
    started, clock = time.time(), time.monotonic()
    busy = stability.busy(reading.take().load_1min, cpu.cores())
    sides, tasks, findings = [], [], list(busy)
    for digest in (options.a, options.b):
        side, task, found = _side(digest, options, store, wire)
        sides.append(side)
        tasks.append(task)
        findings += found
    rounds: List[PairRound] = []
    for index in range(options.rounds):
        wire.progress("round %d of %d" % (index + 1, options.rounds))
        rounds.append(_round(tasks, options, index))
    pairing = Pairing(
        job=job.id,
        a=sides[0],
        b=sides[1],
        options=options,
        rounds=rounds,
        facts=reading.facts(str(store.root)),
        started_unix=started,
        seconds=time.monotonic() - clock,
        findings=stability.once([*findings, *stability.of_pair(rounds)]),
    )
    store.keep_result(job.id, pairing)
    return pairing


def _side(
    digest: str, options: PairOptions, store: Store, wire: Wire
) -> Tuple[PairSide, Dict[str, Any], List[Finding]]:
    folder = store.get(digest)
    manifest = archive.verify_folder(folder, digest)
    trust.require(store.root, folder, digest)
    features.check_cpu(manifest)
    features.check_runtime(manifest)
    wire.progress("running golden inputs of %s" % manifest.name)
    asked = {"threads": options.threads, "provider": options.provider}
    prepared = preparing.prepare(manifest, str(folder), asked, str(store.root), wire)
    checked = launch.in_child({"task": "check", "folder": str(folder), "options": prepared.options})
    parity: Optional[Parity] = codec.decode(Optional[Parity], checked["parity"])  # type: ignore[arg-type]
    used = RuntimeUsed(
        name=manifest.runtime.name,
        version=checked["version"],
        provider=checked["provider"],
        threads=options.threads,
        placement=checked["placement"],
        session_options=manifest.session_options,
    )
    task = {
        "task": "serve",
        "folder": str(folder),
        "options": prepared.options,
        "warmup_seconds": options.warmup_seconds,
        "warmup_runs": options.warmup_runs,
    }
    return _described(manifest, digest, used, parity), task, [*prepared.findings, *stability.of_check(parity, manifest)]


def _described(manifest: Manifest, digest: str, used: RuntimeUsed, parity: Optional[Parity]) -> PairSide:
    return PairSide(
        bundle=digest,
        name=manifest.name,
        target=manifest.target,
        recipe=str(manifest.recipe.get("name", "")),
        runtime=used,
        parity=parity,
        model_bytes=archive.model_bytes(manifest),
    )


def _round(tasks: List[Dict[str, Any]], options: PairOptions, index: int) -> PairRound:
    """One pair of processes, started in turn and measured in quads until the round's share of the time is up.

    In every second round B is loaded first and begins: what the first process of a pair gains is no bundle's own.
    """
    before = reading.take()
    swapped = index % 2 == 1
    first, second = (tasks[1], tasks[0]) if swapped else (tasks[0], tasks[1])
    with Living(first) as one:
        left = one.hear()["typical_ns"]
        with Living(second) as two:
            right = two.hear()["typical_ns"]
            seconds = (options.seconds or default_seconds(left, right)) / options.rounds
            runs = (block_runs(left, options.block_seconds), block_runs(right, options.block_seconds))
            quads = _quads(one, two, runs, seconds, swapped)
            one.say({"end": True})
            two.say({"end": True})
    return PairRound(quads=quads, before=before, after=reading.take())


def _quads(one: Living, two: Living, runs: Tuple[int, int], seconds: float, swapped: bool) -> List[Quad]:
    quads: List[Quad] = []
    end = time.monotonic() + seconds
    while len(quads) < _LEAST_QUADS or time.monotonic() < (end if len(quads) >= _WANTED_QUADS else end + seconds):
        blocks = [one.block(runs[0], _LEAD), two.block(runs[1], _LEAD)]
        blocks += [two.block(runs[1], _LEAD), one.block(runs[0], _LEAD)]
        outer, inner = [blocks[0], blocks[3]], [blocks[1], blocks[2]]
        quads.append(Quad(a_ns=inner, b_ns=outer) if swapped else Quad(a_ns=outer, b_ns=inner))
    return quads


def default_seconds(left_ns: int, right_ns: int) -> float:
    """What a comparison measures by default: 12 s for models below 2.5 ms, 48 s for those of 10 ms, more above 0.5 s."""
    pair = (left_ns + right_ns) / 1e9
    return max(_LEAST_SAMPLES * pair, min(max(_SAMPLES * pair, _LEAST_SECONDS), _MOST_SECONDS))


def block_runs(typical_ns: int, block_seconds: float) -> int:
    """How many inferences a block holds."""
    return max(_LEAST_BLOCK, round(block_seconds * 1e9 / max(typical_ns, 1)))
