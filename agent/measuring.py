"""What `bench` measures once a bundle has been checked: the number of threads, the rounds, the layers."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Optional

from agent import launch
from agent.contract import codec, statistics
from agent.contract.errors import UsageError
from agent.contract.job import BenchOptions
from agent.contract.protocol import Profile, Protocol
from agent.contract.report import Round
from agent.probes import cpu
from agent.wire import Wire

_TRY_SECONDS, _TRY_WARMUP = 0.4, 0.15
_GAIN = 0.97  # more threads must bring so much: they cost energy, and other work its cores


@dataclasses.dataclass(frozen=True)
class Measured:
    """All that is measured of one bundle; `threads` as it ran."""

    threads: int
    rounds: List[Round]
    protocol: Protocol
    profile: Optional[Profile]


def measure(options: BenchOptions, folder: str, run_options: Dict[str, Any], wire: Wire) -> Measured:
    """`run_options` are what `preparing.prepare` made. Raises UsageError for options that exclude each other."""
    _check(options)
    tried: Dict[str, int] = {}
    if options.threads_auto:
        tried = _try_threads(options, folder, run_options, wire)
        run_options = {**run_options, "threads": best_threads(tried)}
    rounds: List[Round] = []
    for index in range(1 if options.sustained_minutes else options.rounds):
        count = share(options.runs, options.rounds, index)
        if count == 0:
            continue
        if not options.sustained_minutes:
            wire.progress("round %d of %d" % (index + 1, options.rounds))
        task = _round_task(options, folder, run_options, count)
        rounds.append(codec.decode(Round, launch.in_child(task, wire.progress)))
    profile: Optional[Profile] = None
    if options.profile:
        asked = {"task": "profile", "folder": folder, "options": run_options, "batch": options.batch}
        profile = codec.decode(Profile, launch.in_child(asked, wire.progress))
    return Measured(
        threads=int(run_options["threads"]),
        rounds=rounds,
        protocol=_protocol(options, tried),
        profile=profile,
    )


def _check(options: BenchOptions) -> None:
    if options.sustained_minutes and (options.streams > 1 or options.runs is not None):
        raise UsageError(
            "a sustained run is one stream, and as long as its minutes",
            expected="--sustained without --streams and --runs",
            code="sustained",
        )
    if options.threads_auto and options.threads:
        raise UsageError("threads cannot be both a number and auto", code="threads")


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
        "batch": options.batch,
        "count": options.streams,
        "sustained_seconds": 60 * options.sustained_minutes,
    }


def _try_threads(options: BenchOptions, folder: str, run_options: Dict[str, Any], wire: Wire) -> Dict[str, int]:
    """The median time (ns) with 1, 2, 4 ... threads and with one for each core: each twice, upwards and downwards, so that a
    clock that moves meanwhile favours none.
    """
    counts = candidates(cpu.cores())
    samples: Dict[int, List[int]] = {count: [] for count in counts}
    for count in [*counts, *reversed(counts)]:
        wire.progress("trying %d threads" % count)
        task = _round_task(options, folder, {**run_options, "threads": count}, None)
        task.update(seconds=_TRY_SECONDS, warmup_seconds=_TRY_WARMUP, sustained_seconds=0.0)
        samples[count] += codec.decode(Round, launch.in_child(task)).samples_ns
    return {str(count): int(statistics.summary(taken)["p50"]) for count, taken in samples.items()}


def candidates(cores: int) -> List[int]:
    """1, 2, 4 ... below the number of cores, and that."""
    powers = [1 << bit for bit in range(cores.bit_length()) if 1 << bit < cores]
    return [*powers, cores]


def best_threads(tried: Dict[str, int]) -> int:
    """The fewest threads that nothing beats by more than 3 %."""
    best = min(tried.values())
    return min(int(count) for count, median in tried.items() if median * _GAIN <= best)


def _protocol(options: BenchOptions, tried: Dict[str, int]) -> Protocol:
    return Protocol(
        seconds=options.seconds,
        runs=options.runs,
        rounds=options.rounds,
        warmup_seconds=options.warmup_seconds,
        warmup_runs=options.warmup_runs,
        batch=options.batch,
        streams=options.streams,
        sustained_minutes=options.sustained_minutes,
        lock_clocks=options.lock_clocks,
        provider=options.provider,
        threads_tried=tried,
    )
