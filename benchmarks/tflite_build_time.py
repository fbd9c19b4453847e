"""What does a TFLite build cost beside the raw library calls? Whole processes in turns.

    python -m benchmarks.tflite_build_time ZOO [CASE ...] [--turns 3] [--recipe int8|fp32]

By hand means the converter (litert-torch, onnx2tf, TFLiteConverter) and for INT8 ai-edge-quantizer's stock recipe (Keras:
TFLiteConverter's own), without golden vectors, manifest, digests and bundle; edgepack runs with --no-check. On a machine with
more load than cores the processor's time judges.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from benchmarks import machine
from benchmarks.build_time import timed
from benchmarks.tflite_parity import model_of, shapes_of, source_file
from benchmarks.tflite_raw import INT8, TORCH, kind, program

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
IN_TURN = "import json, subprocess, sys\nfor argv in json.loads(sys.argv[1]): subprocess.run(argv, check=True)"
RATIO = 1.15


def by_hand(case: Path, recipe: str, folder: Path) -> list[str]:
    """The raw libraries' calls, each in the interpreter that it needs."""
    source, result = source_file(case), str(folder / "raw.tflite")
    common = [str(case / "cal.npz"), result]
    if kind(source) == "torch" and recipe == "int8":
        return [sys.executable, "-c", BOTH.format(torch=TORCH, int8=INT8), str(source), *common]
    if kind(source) == "onnx" and recipe == "int8":
        first, second = program(source, "fp32"), program(source, "int8")
        between = f"{result}.float"
        steps = [
            [first[0], "-c", first[1], str(source), common[0], between],
            [second[0], "-c", second[1], between, *common],
        ]
        return [sys.executable, "-c", IN_TURN, json.dumps(steps)]
    python, code = program(source, recipe)
    return [python, "-c", code, str(source), *common]


def edgepack(case: Path, recipe: str, folder: Path) -> list[str]:
    """The same by edgepack."""
    command = [
        sys.executable,
        "-m",
        "packager",
        "build",
        model_of(case),
        "--target",
        "linux-x86-64",
        "--runtime",
        "tflite",
    ]
    command += ["--recipe", recipe, "--no-check", "-o", str(folder / "ours.edgepack")]
    command += ["--calibration", str(case / "cal.npz")] if recipe == "int8" else []
    return [*command, *(f"--shape={one}" for one in shapes_of(case))]


def main() -> int:
    """Prints the table; 1 where the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoo", type=Path)
    parser.add_argument("cases", nargs="*", default=["fashion-cnn", "mobilenetv2-fashion"])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--recipe", choices=("int8", "fp32"), default="int8")
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = str(Path.cwd())
    print(f"`{machine.command()}`, {machine.facts()}; {machine.load()}, {options.turns} turns\n")
    machine.header("case", "wall, s: by hand / edgepack", "ratio", "processor, s: by hand / edgepack", "ratio")
    clock, worst = int(machine.is_loaded()), 0.0
    for name in options.cases:
        case = options.zoo / name
        with tempfile.TemporaryDirectory() as folder:
            theirs = by_hand(case, options.recipe, Path(folder))
            ours = edgepack(case, options.recipe, Path(folder))
            try:
                first = timed(theirs)
            except AssertionError as error:  # the raw libraries do not take every model that edgepack takes
                machine.row(name, f"by hand: {str(error).strip().splitlines()[-1][:120]}", "-", "-", "-")
                continue
            pairs = [(timed(ours), first), *((timed(ours), timed(theirs)) for _ in range(options.turns - 1))]
        cells, ratios = [], []
        for place in (0, 1):
            one, two = (min(pair[side][place] for pair in pairs) for side in (0, 1))
            ratios.append(one / two)
            cells += [f"{two:.1f} / {one:.1f}", f"{ratios[-1]:.3f}"]
        machine.row(name, *cells)
        worst = max(worst, ratios[clock])
    print(f"\n{machine.load()} at the end; judged by {('the wall clock', 'processor time')[clock]}")
    print("target met" if worst <= RATIO else f"TARGET MISSED: at most {RATIO}x")
    return 0 if worst <= RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
