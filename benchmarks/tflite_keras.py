"""Keras sources: TFLiteConverter's own quantisation beside ai-edge-quantizer's. Accuracy, size and latency of the same model.

    python -m benchmarks.tflite_keras ZOO [CASE ...] [--samples 300] [--turns 20]

The Keras model is the PyTorch module of the case rebuilt with its weights (benchmarks/tflite_arena.py). Both quantisers get
the same samples; edgepack with either scope, TFLiteConverter as its guide has it (everything). LiteRT with XNNPACK, one
thread, in turns in one process. int16x8 is scored on a tenth of the samples and not raced: its kernels are the reference's.
"""

from __future__ import annotations

import argparse
import runpy
import statistics
import tempfile
from pathlib import Path
from typing import Any

from agent.contract.archive import BundleReader
from benchmarks import machine
from benchmarks.tflite_arena import KERAS_MODEL, run_keras, write_steps
from benchmarks.tflite_scope import answers, raced
from packager.pipeline import build

CONVERT = """
import sys
import numpy, tensorflow as tf
model, calibration, folder = sys.argv[1:]
net = tf.keras.models.load_model(model, compile=False)
(samples,) = numpy.load(calibration).values()
call = tf.function(lambda x: net(x, training=False)).get_concrete_function(tf.TensorSpec((1, *net.inputs[0].shape[1:])))
def made(kinds, io, samples):
    converter = tf.lite.TFLiteConverter.from_concrete_functions([call])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if samples is not None:
        converter.representative_dataset = lambda: ([one[None]] for one in samples)
        converter.target_spec.supported_ops = kinds
        converter.inference_input_type = converter.inference_output_type = io
    return converter.convert()
kinds = tf.lite.OpsSet
open(folder + "/int8.tflite", "wb").write(made([kinds.TFLITE_BUILTINS_INT8], tf.int8, samples))
both = [kinds.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8]
open(folder + "/int16x8.tflite", "wb").write(made(both, tf.int16, samples))
open(folder + "/int8-dynamic.tflite", "wb").write(made(None, None, None))
"""
SAVE = KERAS_MODEL + "\nmodel.save(sys.argv[3])\n"
PRECISIONS = ("int8", "int8-dynamic", "int16x8")


def files_of(case: Path, work: Path) -> dict[str, bytes]:
    """Every file by its name in the table; fp32 first."""
    import numpy as np

    write_steps(case, work)
    model = work / "model.keras"
    run_keras(SAVE, [work / "steps.json", work / "arrays.npz", model])
    with np.load(work / "arrays.npz") as data:
        np.savez(work / "cal.npz", input=data["samples"])
    run_keras(CONVERT, [model, work / "cal.npz", work])
    found = {"fp32": ours(model, "fp32", work)}
    for precision in PRECISIONS:
        found[f"{precision} TFLiteConverter"] = (work / f"{precision}.tflite").read_bytes()
        for scope in ("compute", "all") if precision == "int8" else ("",):
            found[f"{precision} ai-edge-quantizer {scope}".strip()] = ours(model, precision, work, scope)
    return found


def ours(model: Path, precision: str, work: Path, scope: str = "") -> bytes:
    """edgepack's file."""
    recipe = precision
    if scope:
        recipe = str(work / "own.toml")
        Path(recipe).write_text(f'precision = "{precision}"\nscope = "{scope}"\n', encoding="utf-8")
    built = build(
        str(model),
        "linux-x86-64",
        runtime="tflite",
        recipe=recipe,
        calibration=str(work / "cal.npz") if precision in ("int8", "int16x8") else None,
        output=work / "ours.edgepack",
    )
    with BundleReader(built.bundle) as reader:
        return reader.read(built.manifest.model)


def report(case: Path, name: str, samples: int, turns: int) -> None:
    """The case's rows."""
    import numpy as np

    with tempfile.TemporaryDirectory(prefix="edgepack-keras-") as text:
        files = files_of(case, Path(text))
    with np.load(case / "eval.npz") as data:
        labels = data["labels"][:samples]
        (given,) = (np.moveaxis(data[key][:samples], 1, -1) for key in data.files if key != "labels")
    score = runpy.run_path(str(case / "metric.py"))["score"]
    times = raced({key: raw for key, raw in files.items() if "int16x8" not in key}, turns)
    truth = answers(files["fp32"], given, ["out"])["out"]
    for key, raw in files.items():
        most = max(1, samples // 10) if "int16x8" in key else samples
        found = answers(raw, given[:most], ["out"])["out"]
        same = float((found.argmax(1) == truth[:most].argmax(1)).mean())
        cells: list[Any] = [f"{score({'output': found}, labels[:most]):.3f}", f"{same:.3f}"]
        cells += [f"{np.abs(found - truth[:most]).mean() / np.abs(truth).max():.5f}", f"{len(raw) / 1e6:.3f}"]
        raced_one = key in times
        median = statistics.median(a / b for a, b in zip(times[key], times["fp32"], strict=True)) if raced_one else 0
        machine.row(name, key, *cells, *([f"{min(times[key]):.3f}", f"{median:.3f}"] if raced_one else ["-", "-"]))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoo", type=Path)
    parser.add_argument("cases", nargs="*", default=["fashion-cnn", "fashion-dscnn", "mobilenetv2-fashion"])
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--turns", type=int, default=20)
    options = parser.parse_args()
    print(f"`{machine.command()}`, {machine.facts()}; {machine.load()}\n", flush=True)
    machine.header("case", "precision, quantiser", "score", "same answer", "mean difference", "MB", "ms", "to fp32")
    for name in options.cases:
        report(options.zoo / name, name, options.samples, options.turns)


if __name__ == "__main__":
    main()
