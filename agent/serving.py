"""A fresh process that stays: it loads a model, warms up, and then times a block whenever it is asked to."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict

from agent import child, rounds
from agent.measure import sampler
from agent.wire import Wire, read_document


def serve(wire: Wire, *, folder: str, options: Dict[str, Any], warmup_seconds: float, warmup_runs: int) -> None:
    """Sends {"type": "ready"}, then answers each {"runs": N, "lead": M} with a block of N samples; ends at {"end": true}.

    The M inferences before a block are not among its samples: the other process has had the caches meanwhile.
    """
    base = Path(folder)
    manifest = child.read_manifest(base)
    runner = child.load_runner(manifest, base, options)
    feed = child.first_feed(manifest, base)
    warm = sampler.warm_up(runner.run, feed, warmup_seconds, warmup_runs, settle=True)
    timed, lead = runner.timed() if hasattr(runner, "timed") else (runner.run, None)
    wire.send({"type": "ready", "typical_ns": sampler.typical(warm)})
    while True:
        asked = read_document()
        if asked.get("end"):
            runner.close()
            return
        for _ in range(asked["lead"]):
            runner.run(feed)
        samples = sampler.sample(timed, feed, 0.0, asked["runs"], lead)
        rounds.take_parts(runner)  # nobody asks for them here, and they would grow
        wire.send({"type": "block", "samples_ns": samples})
