"""The same conversions by the raw libraries' own calls, as their guides have them: what edgepack's files are measured against.

Each is a program of its own, run as `python -c PROGRAM MODEL CALIBRATION RESULT` with the model as the zoo has it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from packager import keras_models, toolchain

TORCH = """
import importlib.util, sys
import litert_torch
model, calibration, result = sys.argv[1:]
spec = importlib.util.spec_from_file_location("model", model)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
net, example = module.build()
litert_torch.convert(net, example).export(result)
"""
ONNX = """
import glob, shutil, sys, tempfile
import onnx2tf
model, calibration, result = sys.argv[1:]
folder = tempfile.mkdtemp()
onnx2tf.convert(input_onnx_file_path=model, output_folder_path=folder, tflite_backend="flatbuffer_direct",
                copy_onnx_input_output_names_to_tflite=True, non_verbose=True)
shutil.copy(glob.glob(folder + "/*_float32.tflite")[0], result)
"""
KERAS = """
import sys
import tensorflow as tf
model, calibration, result = sys.argv[1:]
net = tf.keras.models.load_model(model, compile=False)
call = tf.function(lambda x: net(x, training=False)).get_concrete_function(tf.TensorSpec((1, *net.inputs[0].shape[1:])))
open(result, "wb").write(tf.lite.TFLiteConverter.from_concrete_functions([call]).convert())
"""
KERAS_INT8 = """
import sys
import numpy, tensorflow as tf
model, calibration, result = sys.argv[1:]
net = tf.keras.models.load_model(model, compile=False)
(samples,) = numpy.load(calibration).values()
call = tf.function(lambda x: net(x, training=False)).get_concrete_function(tf.TensorSpec((1, *net.inputs[0].shape[1:])))
converter = tf.lite.TFLiteConverter.from_concrete_functions([call])
converter.optimizations = [tf.lite.Optimize.DEFAULT]
converter.representative_dataset = lambda: ([one[None]] for one in samples)
converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
converter.inference_input_type = converter.inference_output_type = tf.int8
open(result, "wb").write(converter.convert())
"""
# By ai-edge-quantizer's stock recipe, from the raw float file. Inputs by their places, turned where the file wants it.
INT8 = """
import sys
import numpy
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer, recipe
model, calibration, result = sys.argv[1:]
interpreter = Interpreter(model)
(key,) = interpreter.get_signature_list() or ["serving_default"]
runner = interpreter.get_signature_runner(key)
details = runner.get_input_details()
arrays = numpy.load(calibration)
names = list(arrays) if set(details) != set(arrays) else list(details)
def fit(array, detail):
    shape = [int(size) for size in detail["shape"]]
    array = array[None] if array.ndim < len(shape) else array
    array = array if list(array.shape) == shape else numpy.moveaxis(array, 1, -1)
    return array.astype(detail["dtype"])
def feeds():
    for index in range(len(arrays[names[0]])):
        yield {name: fit(arrays[given][index], details[name]) for name, given in zip(details, names)}
made = quantizer.Quantizer(model, recipe.static_wi8_ai8())
made.quantize(made.calibrate({key: list(feeds())})).export_model(result, overwrite=True)
"""


def kind(model: Path) -> str:
    """torch, onnx or keras."""
    return {".py": "torch", ".onnx": "onnx"}.get(model.suffix, "keras")


def program(model: Path, precision: str) -> tuple[str, str]:
    """The interpreter and the program that make the raw file (INT8 of torch and ONNX: from the raw float file)."""
    form = kind(model)
    if form == "keras":
        return keras_models.python_for_keras(), KERAS if precision == "fp32" else KERAS_INT8
    if precision == "int8":
        return sys.executable, INT8
    return (sys.executable, TORCH) if form == "torch" else (toolchain.install("onnx2tf").python, ONNX)


def make(model: Path, calibration: Path, folder: Path) -> dict[str, Path]:
    """The raw float and INT8 files that the libraries make; what they fail on is left out, and said."""
    made: dict[str, Path] = {}
    for precision in ("fp32", "int8"):
        result = folder / f"raw-{precision}.tflite"
        python, code = program(model, precision)
        source = made.get("fp32") if precision == "int8" and kind(model) != "keras" else model
        if source is None:
            break
        done = subprocess.run(
            [python, "-c", code, str(source.resolve()), str(calibration.resolve()), str(result)],
            capture_output=True,
            text=True,
            cwd=folder,
            check=False,
        )
        if result.exists():
            made[precision] = result
        else:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            print(f"    raw {precision}: {lines[-1][:300] if lines else done.returncode}", flush=True)
    return made
