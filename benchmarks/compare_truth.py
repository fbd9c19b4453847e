"""How often is a comparison wrong? Real interleaved samples of this machine, judged by `compare` and by three usual means.

python -m benchmarks.compare_truth record FILE --minutes N [--slower]   # A against A, or 20 against 21 equal layers
python -m benchmarks.compare_truth judge FILE...
python -m benchmarks.compare_truth coverage [--times N]                 # of the 95 % interval, on simulated drifting noise
python -m benchmarks.compare_truth duration [--times N]                 # a comparison of a model of 10 ms by default
"""

from __future__ import annotations

import argparse
import collections
import json
import math
import os
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks import machine

ROUNDS, STRIDE = 12, 4


def record(path, minutes, slower):
    """A line for each comparison at default settings, with one thread: {"kind": "aa" | "ab", "p": the pairing}."""
    from agent.contract import codec
    from packager import Device, build

    end = time.time() + 60 * minutes
    with tempfile.TemporaryDirectory() as scratch, path.open("a", encoding="utf-8") as out:
        os.environ["HOME"] = scratch
        bundles = []
        for blocks in (20, 21) if slower else (20,):
            model = machine.conv_net(Path(scratch) / f"{blocks}.onnx", size=16, channels=48, blocks=blocks)
            bundles.append(Path(scratch) / f"{blocks}.edgepack")
            build(str(model), "linux-x86-64", recipe="fp32", output=bundles[-1], check=False)
        with Device("local") as device:
            while time.time() < end:
                pairing = device.compare(bundles[0], bundles[-1], threads=1)
                out.write(json.dumps({"kind": "ab" if slower else "aa", "p": codec.encode(pairing)}) + "\n")
                out.flush()


def samples(rounds, side):
    return [v for one in rounds for quad in one.quads for block in getattr(quad, f"{side}_ns") for v in block]


def ours(rounds):
    from packager.compare.verdict import judge

    return judge(rounds).verdict


def by_share(share):
    return "slower" if share > 1.02 else "faster" if share < 1 / 1.02 else "same"


def means(rounds):
    return by_share(statistics.fmean(samples(rounds, "b")) / statistics.fmean(samples(rounds, "a")))


def minima(rounds):
    return by_share(min(samples(rounds, "b")) / min(samples(rounds, "a")))


def welch(rounds):
    a, b = samples(rounds, "a"), samples(rounds, "b")
    error = math.sqrt(statistics.variance(a) / len(a) + statistics.variance(b) / len(b))
    t = (statistics.fmean(b) - statistics.fmean(a)) / error
    # With hundreds of samples Student's quantile is the normal one's.
    return "slower" if t > 1.96 else "faster" if t < -1.96 else "same"


def scaled(rounds, factor):
    import dataclasses

    def quad(one):
        return dataclasses.replace(one, b_ns=[[round(v * factor) for v in block] for block in one.b_ns])

    return [dataclasses.replace(one, quads=[quad(q) for q in one.quads]) for one in rounds]


def shut_out(many):
    """How often the intervals of A/A hold no 1: of the medians' ratio, which judges, and of that of the 95th percentiles."""
    from packager.compare.verdict import judge

    told = [judge(rounds) for rounds in many]
    tails = [one.p95_ratio for one in told if one.p95_ratio is not None]
    for name, intervals in (("p50", [one.ratio for one in told]), ("p95", tails)):
        missed = sum(not one.low <= 1 <= one.high for one in intervals)
        print(f"A/A: the interval of the ratio of {name} does not hold 1 in {missed} of {len(intervals)}")
    print()


def windows(rounds):
    return [rounds[i : i + ROUNDS] for i in range(0, len(rounds) - ROUNDS + 1, STRIDE)]


def judge(paths):
    from agent.contract import codec
    from agent.contract.pairing import Pairing

    found = {"aa": [], "ab": []}
    slid, lasted = [], []
    for path in paths:
        rounds = []
        for line in path.read_text(encoding="utf-8").splitlines():
            told = json.loads(line)
            pairing = codec.decode(Pairing, told["p"])
            found[told["kind"]].append(pairing.rounds)
            lasted.append(pairing.seconds)
            if told["kind"] == "aa":
                rounds += pairing.rounds
        slid += windows(rounds)
    print(
        f"{len(lasted)} comparisons took {statistics.median(lasted):.0f} s each ({min(lasted):.0f} to {max(lasted):.0f})\n"
    )
    shut_out(found["aa"])
    cases = {
        "A/A, as they ran": found["aa"],
        f"A/A, windows of {ROUNDS} rounds, {STRIDE} apart": slid,
        "20 against 21 equal layers, as they ran": found["ab"],
        "A/A windows, B's samples times 1.05": [scaled(one, 1.05) for one in slid],
        "A/A windows, B's samples times 1.10": [scaled(one, 1.10) for one in slid],
    }
    machine.header("samples", "judged by", "n", "faster", "slower", "same", "inconclusive")
    for name, many in cases.items():
        for how in (ours, means, welch, minima) if many else ():
            said = collections.Counter(how(rounds) for rounds in many)
            cells = [said[key] for key in ("faster", "slower", "same", "inconclusive")]
            machine.row(name, how.__name__, len(many), *cells)


def coverage(times):
    import numpy as np

    from packager.compare import ratio
    from tests.packager.compare.test_ratio import measured

    machine.header("drift", "luck of a process", "times", "95 % interval holds the true 1.05", "median width")
    for drift, process in ((0.1, 0.01), (0.3, 0.0), (0.03, 0.02)):
        random = np.random.default_rng(11)
        found = [ratio.of_medians(measured(random, 1.05, drift=drift, process=process)) for _ in range(times)]
        share = sum(one.low <= 1.05 <= one.high for one in found) / times
        width = statistics.median(one.high - one.low for one in found)
        machine.row(drift, process, times, f"{share:.1%}", f"{width:.3f}")


def duration(times):
    from packager import Device, build
    from packager.compare.run import compare

    print(f"`{machine.command()}`, {machine.facts()}; {machine.load()}\n")
    machine.header(
        "p50 of A, ms", "measured, s", "in all on the device, s", "verdict", "B over A", "samples of each side"
    )
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["HOME"] = scratch
        model = machine.conv_net(Path(scratch) / "ten.onnx", size=64, channels=64, blocks=24)
        bundle = Path(scratch) / "ten.edgepack"
        build(str(model), "linux-x86-64", recipe="fp32", output=bundle, check=False)
        with Device("local") as device:
            for _ in range(times):
                found = compare(device, bundle, bundle, threads=1)
                spent = sum(sum(samples(one.rounds, "a") + samples(one.rounds, "b")) for one in found.pairings) / 1e9
                ratio = found.judgement.ratio
                between = f"{ratio.estimate:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"
                cells = (f"{spent:.0f}", f"{found.seconds:.0f}", found.judgement.verdict, between, found.a.n)
                machine.row(f"{found.a.p50:.1f}", *cells)
    print(f"\n{machine.load()} at the end")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["record", "judge", "coverage", "duration"])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--times", type=int, default=1000)
    parser.add_argument("--slower", action="store_true")
    chosen = parser.parse_args()
    if chosen.what == "record":
        record(chosen.files[0], chosen.minutes, chosen.slower)
    elif chosen.what == "judge":
        judge(chosen.files)
    elif chosen.what == "coverage":
        coverage(chosen.times)
    else:
        duration(chosen.times)


if __name__ == "__main__":
    main()
