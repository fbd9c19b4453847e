"""Does the agent measure what a bare loop measures? p50 and peak memory of both, in fresh processes, A B A B in one run.

The bare loop is the same session (same options, same input, same warm-up) in a script that does nothing else. On a busy
machine medians are the other work's: where the turns scatter, the 10th percentile of all turns judges in their place.
python -m benchmarks.agent_overhead [--turns N] [--seconds S]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import machine

BARE = """
import json, sys, time
import numpy, onnxruntime
model, feed, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
onnxruntime.set_default_logger_severity(3)
options = onnxruntime.SessionOptions()
options.log_severity_level = 3
options.intra_op_num_threads = options.inter_op_num_threads = 1
feed = {"input": numpy.load(feed)[0]}
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
names = [entry.name for entry in session.get_outputs()]
clock = time.perf_counter_ns
def measure(seconds):
    times = []
    end = clock() + int(seconds * 1e9)
    while True:
        start = clock()
        session.run(names, feed)
        stop = clock()
        times.append(stop - start)
        if stop >= end:
            return times
measure(0.5)
times = sorted(measure(seconds))
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"times": times, "peak": int(peak) * 1024}))
"""
LIMIT, MEMORY_LIMIT = 0.02, 8e6
NOISE = 0.04  # with quartiles of the ratios further apart than this, other work decides the medians


def bare(model, feed, seconds):
    argv = [sys.executable, "-I", "-c", BARE, str(model), str(feed), str(seconds)]
    return json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)


def agent(device, bundle, seconds):
    (measured,) = device.bench(bundle, threads=1, rounds=1, seconds=seconds).rounds
    return {"times": sorted(measured.samples_ns), "peak": measured.peak_memory_bytes}


def p50(turn):
    return turn["times"][len(turn["times"]) // 2]


def pooled_p10(turns):
    """The 10th percentile of all turns together: what the model takes when nobody takes the processor away."""
    times = sorted(one for turn in turns for one in turn["times"])
    return times[len(times) // 10]


def compare(name, path, folder, turns, seconds):
    from agent.contract.archive import BundleReader
    from packager import Device, build

    bundle = folder / f"{name}.edgepack"
    built = build(str(path), "linux-x86-64", recipe="fp32", output=bundle, check=False).manifest
    with BundleReader(bundle) as reader:
        reader.extract(folder / name)
    model = folder / name / built.model
    feed = folder / name / built.golden.inputs[0].file
    ours, theirs = [], []
    with Device("local") as device:
        agent(device, bundle, 0.1)  # the upload and the first import are nobody's
        for _ in range(turns):
            ours.append(agent(device, bundle, seconds))
            theirs.append(bare(model, feed, seconds))
    ratios = sorted(p50(one) / p50(two) for one, two in zip(ours, theirs, strict=True))
    noise = ratios[3 * turns // 4] - ratios[turns // 4]
    median, quiet = statistics.median(ratios), pooled_p10(ours) / pooled_p10(theirs)
    above = statistics.median(one["peak"] for one in ours) - statistics.median(two["peak"] for two in theirs)
    machine.row(
        name,
        f"{min(map(p50, theirs)) / 1e3:.1f} / {min(map(p50, ours)) / 1e3:.1f}",
        machine.spread(ratios),
        f"{noise:.3f}",
        f"{quiet:.4f}",
        "p10" if noise > NOISE else "p50",
        f"{above / 1e6:+.1f} on {statistics.median(two['peak'] for two in theirs) / 1e6:.0f}",
    )
    return (quiet if noise > NOISE else median), above


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--only", default="")
    chosen = parser.parse_args()
    print(f"`{machine.command()}`, {machine.facts()}; {machine.load()}, {chosen.turns} turns of {chosen.seconds:g} s\n")
    machine.header(
        "model",
        "p50, us: bare / agent (best turns)",
        "ratio of p50 per turn: median (range)",
        "between its quartiles",
        "ratio of p10, all turns",
        "judged by",
        "memory above bare, MB",
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ["HOME"] = scratch  # the store of this run's own
        models = {
            "tiny": machine.dense_net(folder / "tiny.onnx", width=96, layers=3),
            "small": machine.conv_net(folder / "small.onnx", size=32, channels=40, blocks=6),
            "large": machine.conv_net(folder / "large.onnx", size=64, channels=64, blocks=8),
            "huge": machine.conv_net(folder / "huge.onnx", size=160, channels=96, blocks=9),
            "giant": machine.conv_net(folder / "giant.onnx", size=160, channels=96, blocks=19),
        }
        results = [
            compare(name, path, folder, chosen.turns, chosen.seconds)
            for name, path in models.items()
            if chosen.only in name
        ]
    print(f"\n{machine.load()} at the end")
    met = all(ratio <= 1 + LIMIT and above <= MEMORY_LIMIT for ratio, above in results)
    print("target met" if met else f"TARGET MISSED: p50 within {LIMIT:.0%}, memory within {MEMORY_LIMIT / 1e6:.0f} MB")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
