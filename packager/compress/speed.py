"""Two ONNX files timed beside each other on this machine: in turns, so that what disturbs one disturbs the other."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packager.onnx_model import need_onnxruntime

ROUNDS = 8


@dataclasses.dataclass(frozen=True)
class Speed:
    """Medians in milliseconds; `ratio` is before / after (above 1: faster), `interval` the lowest and highest of the rounds
    without the outermost on each side: with 8 rounds it holds the true ratio in 93 of 100 cases.
    """

    before_ms: float
    after_ms: float
    ratio: float
    interval: tuple[float, float]

    @property
    def verdict(self) -> str:
        """faster, slower, or no difference that the measurement can tell."""
        low, high = self.interval
        if low <= 1 <= high:
            return "no measurable difference"
        return "faster" if low > 1 else "slower"

    def document(self) -> dict[str, Any]:
        """For --json."""
        return {**dataclasses.asdict(self), "interval": list(self.interval), "verdict": self.verdict}


def compare(
    before: Path, after: Path, feed: Mapping[str, Any], *, seconds: float = 1.0, threads: int = 1, fused: bool = True
) -> Speed:
    """Both files in turn on one sample, with onnxruntime's CPU kernels. `fused` lets onnxruntime optimise both itself."""
    sessions = [_session(path, threads, optimised=fused) for path in (before, after)]
    once = [_median(session, feed, 3) for session in sessions]
    runs = [max(3, min(2000, int(seconds * 1e9 / 2 / ROUNDS / max(1, one)))) for one in once]
    medians: list[list[float]] = [[], []]
    for index in range(ROUNDS):
        for side in (0, 1) if index % 2 == 0 else (1, 0):
            medians[side].append(_median(sessions[side], feed, runs[side]))
    ratios = sorted(left / right for left, right in zip(*medians, strict=True))
    middle = (ratios[ROUNDS // 2 - 1] + ratios[ROUNDS // 2]) / 2
    times = [sorted(side)[ROUNDS // 2] / 1e6 for side in medians]
    return Speed(times[0], times[1], middle, (ratios[1], ratios[-2]))


def _session(path: Path, threads: int, *, optimised: bool) -> Any:
    onnxruntime = need_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _median(session: Any, feed: Mapping[str, Any], runs: int) -> float:
    samples = []
    for _ in range(runs):
        start = time.perf_counter_ns()
        session.run(None, dict(feed))
        samples.append(time.perf_counter_ns() - start)
    return float(sorted(samples)[len(samples) // 2])
