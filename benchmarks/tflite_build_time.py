"""What does a TFLite build cost beside the raw library calls? Whole processes in turns: torch in, full INT8 out.

    python -m benchmarks.tflite_build_time ZOO [CASE ...] [--turns 3]

By hand means litert-torch's conversion and ai-edge-quantizer's stock recipe in one process, without golden vectors, manifest,
digests and bundle; edgepack runs with --no-check. On a machine with more load than cores the processor's time judges.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from benchmarks import machine
from benchmarks.build_time import timed
from benchmarks.tflite_parity import model_of, source_file
from benchmarks.tflite_raw import INT8, TORCH

# The two programs as one process: the float file is a file between them too.
BOTH = """
import sys
model, calibration, result = sys.argv[1:]
TORCH, INT8 = {torch!r}, {int8!r}
sys.argv[1:] = [model, calibration, result + ".float"]
exec(TORCH, {{}})
sys.argv[1:] = [result + ".float", calibration, result]
exec(INT8, {{}})
"""
RATIO = 1.15


def main() -> int:
    """Prints the table; 1 where the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoo", type=Path)
    parser.add_argument("cases", nargs="*", default=["fashion-cnn", "mobilenetv2-fashion"])
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = str(Path.cwd())
    print(f"`{machine.command()}`, {machine.facts()}; {machine.load()}, {options.turns} turns\n")
    machine.header("case", "wall, s: by hand / edgepack", "ratio", "processor, s: by hand / edgepack", "ratio")
    kind, worst = int(machine.is_loaded()), 0.0
    for name in options.cases:
        case = options.zoo / name
        with tempfile.TemporaryDirectory() as folder:
            common = [str(case / "cal.npz"), f"{folder}/raw.tflite"]
            code = BOTH.format(torch=TORCH, int8=INT8)
            theirs = [sys.executable, "-c", code, str(source_file(case)), *common]
            ours = [sys.executable, "-m", "packager", "build", model_of(case), "--target", "linux-x86-64"]
            ours += ["--runtime", "tflite", "--recipe", "int8", "--calibration", str(case / "cal.npz")]
            ours += ["--no-check", "-o", f"{folder}/ours.edgepack"]
            pairs = [(timed(ours), timed(theirs)) for _ in range(options.turns)]
        cells, ratios = [], []
        for place in (0, 1):
            one, two = (min(pair[side][place] for pair in pairs) for side in (0, 1))
            ratios.append(one / two)
            cells += [f"{two:.1f} / {one:.1f}", f"{ratios[-1]:.3f}"]
        machine.row(name, *cells)
        worst = max(worst, ratios[kind])
    print(f"\n{machine.load()} at the end; judged by {('the wall clock', 'processor time')[kind]}")
    print("target met" if worst <= RATIO else f"TARGET MISSED: at most {RATIO}x")
    return 0 if worst <= RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
