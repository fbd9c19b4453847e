"""What does `edgepack build` cost beside the same library calls made by hand? Whole processes, A B A B in one run.

By hand means: load, check, convert or quantise, save, by onnx and onnxruntime alone; without golden vectors, manifest,
digests, provenance, the bundle. Both write a model of the same bytes in the end. python -m benchmarks.build_time [--turns N]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from benchmarks import machine
from packager import demo_data

HEAD = """
import sys
import onnx
source, result, data = sys.argv[1:]
model = onnx.load(source)
onnx.checker.check_model(model, full_check=True)
"""
BY_HAND = {
    "fp32": HEAD + "onnx.save(model, result)\n",
    "fp16": HEAD
    + """
from onnxruntime.transformers.float16 import convert_float_to_float16
onnx.save(convert_float_to_float16(model, keep_io_types=True), result)
""",
    "int8": HEAD
    + """
import numpy
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process
arrays = numpy.load(data)
name = model.graph.input[0].name
class Reader(quantization.CalibrationDataReader):
    feeds = iter([{name: sample[None]} for sample in arrays[name]])
    def get_next(self):
        return next(self.feeds, None)
quant_pre_process(source, result + ".prepared", skip_symbolic_shape=True)
quantization.quantize_static(
    result + ".prepared", result, Reader(), quant_format=quantization.QuantFormat.QDQ, per_channel=True,
    op_types_to_quantize=["Conv", "ConvTranspose", "Gemm", "MatMul", "MaxPool", "Reshape", "Transpose", "Flatten",
                          "Squeeze", "Unsqueeze"],
    activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QUInt8,
    calibrate_method=quantization.CalibrationMethod.MinMax,
    extra_options={"WeightSymmetric": False, "ActivationSymmetric": False},
)
""",
}
RATIO, SECONDS = 1.15, 1.0


def timed(argv):
    start = time.perf_counter()
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    elapsed = time.perf_counter() - start
    assert done.returncode == 0, done.stderr
    return elapsed


def compare(name, model, data, recipe, folder, turns):
    bundle, result = folder / "out.edgepack", folder / "by-hand.onnx"
    ours = [sys.executable, "-m", "packager", "build", str(model), "--target", "linux-x86-64", "--recipe", recipe]
    ours += ["--no-check", "-o", str(bundle)] + (["--calibration", str(data)] if recipe == "int8" else [])
    theirs = [sys.executable, "-c", BY_HAND[recipe], str(model), str(result), str(data)]
    one, two = [], []
    for _ in range(turns + 1):
        one.append(timed(ours))
        two.append(timed(theirs))
    one, two = one[1:], two[1:]  # the first turn reads the libraries from the disk
    with zipfile.ZipFile(bundle) as archive:
        sizes = archive.getinfo("model/model.onnx").file_size, result.stat().st_size
    ratios = [a / b for a, b in zip(one, two, strict=True)]
    best, more = min(one) / min(two), min(one) - min(two)
    machine.row(
        f"{name}, {model.stat().st_size / 1e6:.1f} MB",
        recipe,
        f"{min(two):.2f}",
        f"{min(one):.2f}",
        f"{best:.2f}",
        machine.spread(ratios),
        f"{more:+.2f} ({statistics.median(one) - statistics.median(two):+.2f})",
        f"{sizes[0] / 1e6:.2f} / {sizes[1] / 1e6:.2f}",
    )
    return best <= RATIO or more <= SECONDS


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=6)
    chosen = parser.parse_args()
    os.environ["PYTHONPATH"] = str(Path.cwd())
    print(f"`{machine.command()}`, {machine.facts()}; {machine.load()}, {chosen.turns} turns\n")
    machine.header(
        "model",
        "recipe",
        "by hand, s (best turn)",
        "edgepack, s (best turn)",
        "ratio of the best turns",
        "ratio per turn: median (range)",
        "more, s: best (median)",
        "model in the bundle / by hand, MB",
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        demo = Path(demo_data.__file__).parent
        made = machine.conv_net(folder / "made.onnx", size=64, channels=160, blocks=12, hidden=320)
        samples = machine.samples(folder / "made.npz", [32, 3, 64, 64])
        cases = [
            ("demo", demo / "fashion-cnn.onnx", demo / "calibration.npz"),
            ("made", made, samples),
        ]
        met = [
            compare(name, model, data, recipe, folder, chosen.turns)
            for name, model, data in cases
            for recipe in BY_HAND
        ]
    print(f"\n{machine.load()} at the end")
    print("target met" if all(met) else f"TARGET MISSED: at most {RATIO}x, or {SECONDS:g} s more")
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
