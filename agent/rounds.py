"""One round of a measurement, in its fresh process: load, first inference, warm-up, samples; probes before and after."""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from agent import child
from agent.contract import statistics
from agent.contract.errors import DeviceError
from agent.contract.manifest import Manifest
from agent.contract.protocol import Layer, Profile
from agent.contract.report import Round
from agent.measure import energy, sampler, streams, sustained
from agent.probes import cpu, memory, reading
from agent.wire import Wire

_PROFILED = 50  # inferences, or as many as _PROFILE_SECONDS hold
_PROFILE_SECONDS = 5.0
_FEWEST = 5


def round_(
    wire: Wire,
    *,
    folder: str,
    options: Dict[str, Any],
    seconds: float,
    runs: Optional[int] = None,
    warmup_seconds: float = 0.5,
    warmup_runs: int = 5,
    batch: int = 0,
    count: int = 1,
    sustained_seconds: float = 0.0,
    baseline: Optional[int] = None,
) -> Round:
    """`count` streams share the samples; `sustained_seconds` begin with the second inference, without a warm-up."""
    base = Path(folder)
    manifest = child.read_manifest(base)
    before = reading.take()
    idle = energy.idle()
    # The runtime's own import is not the model's load time.
    importlib.import_module("agent.runners." + manifest.runtime.name)
    feed = batched(manifest, base, batch) if batch else child.first_feed(manifest, base)
    child.import_runtime(manifest)
    clock = time.perf_counter_ns
    start = clock()
    runner = child.load_runner(manifest, base, options)
    loaded = clock()
    runner.run(feed)
    first = clock()
    warm = [] if sustained_seconds else sampler.warm_up(runner.run, feed, warmup_seconds, warmup_runs, settle=True)
    more = [child.load_runner(manifest, base, options) for _ in range(count - 1)]
    for other in more:
        sampler.warm_up(other.run, feed, 0.0, warmup_runs)
    take_parts(runner)  # those of the warm-up
    made = _sampled(wire, [runner, *more], feed, seconds, runs, warm, sustained_seconds)
    result = Round(
        load_ns=loaded - start,
        first_ns=first - loaded,
        warmup_ns=warm,
        parts_ns=take_parts(runner),
        peak_memory_bytes=memory.process_peak(),
        baseline_memory_bytes=baseline,
        before=before,
        after=reading.take(),
        energy=energy.measure(lambda: runner.run(feed), idle),
        **made,
    )
    for one in [runner, *more]:
        one.close()
    return result


def _sampled(
    wire: Wire,
    runners: List[Any],
    feed: Dict[str, Any],
    seconds: float,
    runs: Optional[int],
    warm: List[int],
    sustained_seconds: float,
) -> Dict[str, Any]:
    """The fields of a Round that the samples fill."""
    timed, lead = runners[0].timed() if hasattr(runners[0], "timed") else (runners[0].run, None)
    tick = sampler.tick()
    loops = sampler.loops_for(sampler.typical(warm), tick) if warm and len(runners) == 1 else 1
    work, begun = cpu.Work(), time.perf_counter_ns()
    windows: List[Any] = []
    wall: Optional[int] = None
    if sustained_seconds:
        samples, windows = sustained.course(timed, feed, sustained_seconds, lead, wire.progress)
    elif len(runners) > 1:
        samples, wall = streams.together(runners, feed, seconds, runs)
    else:
        samples = sampler.sample(timed, feed, seconds, runs, lead, loops)
    wall = time.perf_counter_ns() - begun if wall is None else wall
    others, stolen = work.of_others()
    return {
        "samples_ns": samples,
        "loops": loops,
        "tick_ns": tick,
        "begun_ns": begun,
        "wall_ns": wall,
        "others_cores": others,
        "stolen_cores": stolen,
        "windows": windows,
    }


def take_parts(runner: Any) -> Dict[str, List[int]]:
    """Each inference's parts as the runtime times them itself (copies, computing), since the last call; {} for most."""
    return runner.take_parts() if hasattr(runner, "take_parts") else {}


def batched(manifest: Manifest, folder: Path, batch: int) -> Dict[str, Any]:
    """The golden samples one after another, until every input holds `batch`. Raises DeviceError where a model's first
    dimension is fixed at another number.
    """
    import numpy as np

    for spec in manifest.inputs:
        size = spec.shape[0] if spec.shape else None
        if not isinstance(size, str) and size != batch:
            raise DeviceError(
                "the input %r takes %s at once, not %d" % (spec.name, size, batch),
                where=manifest.name,
                expected="a model whose first dimension is free",
                fix="export it with a dynamic batch dimension, or leave --batch out",
                code="fixed-batch",
            )
    feeds = child.golden_feeds(manifest, folder) or [child.made_feed(manifest)]
    made = {}
    for name in feeds[0]:
        rows = np.concatenate([one[name] for one in feeds])
        made[name] = np.ascontiguousarray(np.resize(rows, (batch, *rows.shape[1:])))
    return made


def profile(
    wire: Wire, *, folder: str, options: Dict[str, Any], batch: int = 0, baseline: Optional[int] = None
) -> Profile:
    """The time of each layer, with the runtime's own profiling switched on; see `Profile`."""
    import tempfile

    del baseline
    base = Path(folder)
    manifest = child.read_manifest(base)
    feed = batched(manifest, base, batch) if batch else child.first_feed(manifest, base)
    wire.progress("profiling layers")
    with tempfile.TemporaryDirectory(prefix="edgepack-") as scratch:
        try:
            runner = child.load_runner(manifest, base, {**options, "profile": scratch, "layer_times": True})
            if not hasattr(runner, "layers"):
                runner.close()
                return Profile(
                    [], 0, 0.0, "%s %s tells Python nothing of its operators' times" % (runner.name, runner.version())
                )
            times = _timed_runs(runner, feed)
            rows: List[Dict[str, Any]] = runner.layers()
        except DeviceError as error:
            if error.code != "no-layers":
                raise
            return Profile([], 0, 0.0, error.what)
        runner.close()
    if not rows:
        return Profile([], 0, 0.0, "%s told no layer" % runner.name)
    kept = times[1:] or times
    return Profile([Layer(**row) for row in rows], len(kept), statistics.middle(kept))


def _timed_runs(runner: Any, feed: Dict[str, Any]) -> List[int]:
    clock = time.perf_counter_ns
    times: List[int] = []
    own: Optional[Callable[[Dict[str, Any]], int]] = getattr(runner, "profiled", None)  # where profiling is another way
    end = clock() + int(_PROFILE_SECONDS * 1e9)
    while len(times) < _PROFILED and (clock() < end or len(times) < _FEWEST):
        start = clock()
        taken = own(feed) if own else runner.run(feed)
        times.append(taken if own else clock() - start)
    return times
