"""What does `edgepack build` cost beside the same library calls made by hand? Whole processes, A B A B in one run.

By hand means: load, check, convert or quantise, save: onnx and onnxruntime alone, without golden vectors, manifest, digests,
provenance and the bundle. The models that come out have the same size. With --golden the original is run by hand too, on four
samples without optimisations. python -m benchmarks.build_time [--turns N] [--golden]
"""

from __future__ import annotations

import argparse
import os
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
onnx.checker.check_model(model)
"""
SAMPLES = """
import numpy
arrays = numpy.load(data)
name = model.graph.input[0].name
"""
GOLDEN = (
    SAMPLES
    + """
import onnxruntime
options = onnxruntime.SessionOptions()
options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
golden = [session.run(None, {name: sample[None]}) for sample in arrays[name][:4]]
del session
"""
)
BY_HAND = {
    "fp32": "onnx.save(model, result)\n",
    "fp16": """
from onnxruntime.transformers.float16 import convert_float_to_float16
onnx.save(convert_float_to_float16(model, keep_io_types=True), result)
""",
    "int8": SAMPLES
    + """
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process
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
    """Wall-clock and processor seconds of a whole process."""
    with tempfile.TemporaryFile() as talk:
        start = time.perf_counter()
        process = subprocess.Popen(argv, stdout=talk, stderr=talk)
        _, status, used = os.wait4(process.pid, 0)
        elapsed = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        talk.seek(0)
        assert process.returncode == 0, talk.read().decode()
    return elapsed, used.ru_utime + used.ru_stime


def compare(name, model, data, recipe, folder, turns, head):
    """The ratio and the seconds more, by the wall clock and by the processor's time."""
    bundle, result = folder / "out.edgepack", folder / "by-hand.onnx"
    ours = [sys.executable, "-m", "packager", "build", str(model), "--target", "linux-x86-64", "--recipe", recipe]
    ours += ["--no-check", "-o", str(bundle)] + (["--calibration", str(data)] if recipe == "int8" else [])
    theirs = [sys.executable, "-c", head + BY_HAND[recipe], str(model), str(result), str(data)]
    pairs = [(timed(ours), timed(theirs)) for _ in range(turns + 1)][1:]  # the first reads the libraries from the disk
    with zipfile.ZipFile(bundle) as archive:
        sizes = archive.getinfo("model/model.onnx").file_size, result.stat().st_size
    cells, judged = [], []
    for kind in (0, 1):
        one, two = [ours[kind] for ours, _ in pairs], [theirs[kind] for _, theirs in pairs]
        ratios = [a / b for a, b in zip(one, two, strict=True)]
        judged.append((min(one) / min(two), min(one) - min(two)))
        cells += [f"{min(two):.2f} / {min(one):.2f}", f"{judged[-1][0]:.2f}, {judged[-1][1]:+.2f} s"]
        cells.append(machine.spread(ratios))
    label = f"{name}, {model.stat().st_size / 1e6:.1f} MB"
    machine.row(label, recipe, *cells, f"{sizes[1] / 1e6:.2f} / {sizes[0] / 1e6:.2f}")
    return judged


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--golden", action="store_true", help="run the original by hand, too: a milder comparison")
    chosen = parser.parse_args()
    os.environ["PYTHONPATH"] = str(Path.cwd())
    print(f"`{machine.command()}`, {machine.facts()}; {machine.load()}, {chosen.turns} turns\n")
    machine.header(
        "model",
        "recipe",
        "wall, s: by hand / edgepack (best turns)",
        "ratio, more",
        "ratio per turn: median (range)",
        "processor, s: by hand / edgepack (best turns)",
        "ratio, more",
        "ratio per turn: median (range)",
        "model by hand / in the bundle, MB",
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        demo = Path(demo_data.__file__).parent
        made = machine.conv_net(folder / "made.onnx", size=64, channels=128, blocks=10, hidden=256)
        samples = machine.samples(folder / "made.npz", [32, 3, 64, 64])
        large = machine.conv_net(folder / "large.onnx", size=64, channels=160, blocks=20, hidden=256)
        cases = [
            ("demo", demo / "fashion-cnn.onnx", demo / "calibration.npz"),
            ("made", made, samples),
            ("large", large, samples),
        ]
        judged = [
            compare(name, model, data, recipe, folder, chosen.turns, HEAD + (GOLDEN if chosen.golden else ""))
            for name, model, data in cases
            for recipe in BY_HAND
        ]
    kind = int(machine.is_loaded())
    print(f"\n{machine.load()} at the end; judged by {('the wall clock', 'processor time')[kind]}")
    met = all(both[kind][0] <= RATIO or both[kind][1] <= SECONDS for both in judged)
    print("target met" if met else f"TARGET MISSED: at most {RATIO}x, or {SECONDS:g} s more")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
