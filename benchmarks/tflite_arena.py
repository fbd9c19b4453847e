"""TFLite Micro's arena for PyTorch models, beside Keras models that compute the very same function.

    python -m benchmarks.tflite_arena ZOO [CASE ...]

The Keras model is built from the traced module with its weights: SAME where that is exactly PyTorch's padding, else explicit
zero padding; a flattening's weights in Keras' own order. TFLiteConverter makes it full INT8; both files' arenas are measured
to the byte in TFLite Micro. That the two compute the same is shown by the cosine of their outputs in float.
"""

from __future__ import annotations

import argparse
import json
import operator
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from agent.contract.archive import BundleReader
from benchmarks import machine
from benchmarks.tflite_parity import cosine, model_of
from packager import keras_models
from packager.micro.tflm import run_micro
from packager.pipeline import build, find_source
from packager.sources.tflite import Tflite
from packager.tflite_graph import same_padding
from packager.tflite_model import operator_counts, read_model

PLENTY = """
schema = "edgepack.profile/1"
name = "plenty"
title = "A microcontroller with room for everything"
kind = "microcontroller"
[cpu]
arch = "thumb"
model = "Cortex-M7"
cores = 1
[memory]
ram = "64 MiB"
flash = "64 MiB"
[default]
runtime = "tflite_micro"
recipe = "int8"
[int8]
scope = "all"
[runtimes.tflite_micro]
version = "1.0"
"""
KERAS_MODEL = """
import json, sys
import numpy as np, tensorflow as tf
from tensorflow import keras
K = keras.layers
steps = json.load(open(sys.argv[1]))
arrays = np.load(sys.argv[2])
values, first = {}, steps[0]
for one in steps:
    kind, of = one["kind"], [values[name] for name in one.get("of", [])]
    weights = [arrays[name] for name in one.get("weights", [])]
    if kind == "input":
        out = start = keras.Input(one["shape"], batch_size=1, name="input")
    elif kind in ("conv", "depthwise"):
        x = of[0]
        if one["pad"]:
            x = K.ZeroPadding2D(tuple(map(tuple, one["pad"])))(x)
        common = dict(strides=one["stride"], padding="same" if one["same"] else "valid", use_bias=len(weights) > 1)
        if kind == "conv":
            layer = K.Conv2D(weights[0].shape[-1], weights[0].shape[:2], **common)
        else:
            layer = K.DepthwiseConv2D(weights[0].shape[:2], **common)
        out = layer(x)
        layer.set_weights(weights)
    elif kind == "norm":
        layer = K.BatchNormalization(epsilon=one["epsilon"])
        out = layer(of[0])
        layer.set_weights(weights)
    elif kind == "relu":
        out = K.ReLU(max_value=one["most"])(of[0])
    elif kind == "maxpool":
        out = K.MaxPooling2D(one["size"])(of[0])
    elif kind == "mean":
        out = K.GlobalAveragePooling2D()(of[0])
    elif kind == "flatten":
        out = K.Flatten()(of[0]) if len(of[0].shape) > 2 else of[0]
    elif kind == "dense":
        layer = K.Dense(weights[0].shape[1])
        out = layer(of[0])
        layer.set_weights(weights)
    elif kind == "add":
        out = K.Add()(of)
    values[one["name"]] = out
model = keras.Model(start, out)
"""
KERAS = (
    KERAS_MODEL
    + """
samples = arrays["samples"]
np.save(sys.argv[4], np.concatenate([model(one[None], training=False).numpy() for one in samples[:8]]))
call = tf.function(lambda x: model(x, training=False)).get_concrete_function(tf.TensorSpec((1, *samples.shape[1:])))
converter = tf.lite.TFLiteConverter.from_concrete_functions([call])
converter.optimizations = [tf.lite.Optimize.DEFAULT]
converter.representative_dataset = lambda: ([one[None]] for one in samples)
converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
converter.inference_input_type = converter.inference_output_type = tf.int8
open(sys.argv[3], "wb").write(converter.convert())
"""
)


class Steps:
    """The traced module as steps for Keras, channels last."""

    def __init__(self, net: Any, example: Any) -> None:
        from torch import fx
        from torch.fx.passes.shape_prop import ShapeProp

        self.steps: list[dict[str, Any]] = []
        self.arrays: dict[str, Any] = {}
        traced = fx.symbolic_trace(net)
        ShapeProp(traced).propagate(example)
        modules = dict(traced.named_modules())
        for node in traced.graph.nodes:
            if node.op != "output":
                self._step(node, modules.get(str(node.target)))

    def _add(self, node: Any, kind: str, weights: tuple[Any, ...] = (), **facts: Any) -> None:
        names = []
        for place, array in enumerate(weights):
            names.append(f"{node.name}_{place}")
            self.arrays[names[-1]] = array.detach().numpy()
        of = [one.name for one in node.all_input_nodes]
        self.steps.append({"name": node.name, "kind": kind, "of": of, "weights": names, **facts})

    def _step(self, node: Any, module: Any) -> None:
        kind = type(module).__name__ if node.op == "call_module" else node.target
        shape = node.all_input_nodes[0].meta["tensor_meta"].shape if node.all_input_nodes else ()
        if node.op == "placeholder":
            _, channels, height, width = node.meta["tensor_meta"].shape
            self.steps.append({"name": node.name, "kind": "input", "shape": [height, width, channels]})
        elif kind == "Conv2d":
            self._conv(node, module, shape)
        elif kind == "BatchNorm2d":
            arrays = (module.weight, module.bias, module.running_mean, module.running_var)
            self._add(node, "norm", arrays, epsilon=module.eps)
        elif kind in ("ReLU", "ReLU6"):
            self._add(node, "relu", most=6.0 if kind == "ReLU6" else None)
        elif kind == "MaxPool2d":
            self._add(node, "maxpool", size=module.kernel_size)
        elif kind in ("AdaptiveAvgPool2d", "mean"):
            self._add(node, "mean")
        elif kind in ("Flatten", "flatten"):
            self._add(node, "flatten", shape=list(shape))
        elif kind == "Linear":
            self._dense(node, module)
        elif kind in (operator.add, "add"):
            self._add(node, "add")
        else:
            raise SystemExit(f"no Keras form for {kind}")

    def _conv(self, node: Any, module: Any, shape: Any) -> None:
        pads = [
            (module.padding[i], same_padding(shape[2 + i], module.kernel_size[i], module.stride[i], 1)) for i in (0, 1)
        ]
        same = all(given == left == right for given, (left, right) in pads)
        weight = module.weight
        depthwise = module.groups > 1
        moved = weight.permute(2, 3, 0, 1) if depthwise else weight.permute(2, 3, 1, 0)
        explicit = [] if same or not any(module.padding) else [[given, given] for given, _ in pads]
        arrays = (moved.contiguous(), *([module.bias] if module.bias is not None else []))
        kind = "depthwise" if depthwise else "conv"
        self._add(node, kind, arrays, stride=list(module.stride), same=same, pad=explicit)

    def _dense(self, node: Any, module: Any) -> None:
        weight = module.weight.t()
        before = next(one for one in self.steps if one["name"] == node.all_input_nodes[0].name)
        if before["kind"] == "flatten" and before["shape"][2] * before["shape"][3] > 1:
            _, channels, height, width = before["shape"]
            weight = weight.reshape(channels, height, width, -1).permute(1, 2, 0, 3).reshape(weight.shape)
        self._add(node, "dense", (weight.contiguous(), module.bias))


def keras_file(case: Path, folder: Path) -> tuple[Path, float]:
    """The Keras model's full INT8 file, and the least cosine of its float outputs with PyTorch's."""
    import numpy as np

    truth = write_steps(case, folder)
    argv = [folder / name for name in ("steps.json", "arrays.npz", "keras.tflite", "out.npy")]
    run_keras(KERAS, argv)
    return argv[2], cosine(np.load(argv[3]), truth)


def run_keras(code: str, argv: list[Path]) -> None:
    """A program under the interpreter that holds TensorFlow. Raises SystemExit with its last words."""
    python = keras_models.python_for_keras()
    done = subprocess.run([python, "-c", code, *map(str, argv)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])


def write_steps(case: Path, folder: Path) -> Any:
    """steps.json and arrays.npz for Keras; PyTorch's answers to the first eight calibration samples."""
    import importlib.util

    import numpy as np
    import torch

    spec = importlib.util.spec_from_file_location("arena_model", case / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    net, example = module.build()
    made = Steps(net, *example)
    with np.load(case / "cal.npz") as data:
        (samples,) = (data[name] for name in data.files)
    with torch.no_grad():
        truth = np.concatenate([net(torch.from_numpy(one[None])).numpy() for one in samples[:8]])
    np.savez(folder / "arrays.npz", samples=np.moveaxis(samples, 1, -1), **made.arrays)
    (folder / "steps.json").write_text(json.dumps(made.steps), encoding="utf-8")
    return truth


def arena(path: Path) -> int:
    """Bytes, by search."""
    import numpy as np

    artifact = Tflite().open(str(path), {})
    zeros = {spec.name: np.zeros([int(size) for size in spec.shape], spec.dtype) for spec in artifact.inputs}
    return run_micro(artifact, [zeros])[0]


def told(path: Path) -> str:
    """TRANSPOSE and PAD operators."""
    counts = operator_counts(read_model(path))
    return f"{counts['TRANSPOSE']}/{counts['PAD'] + counts['PADV2']}"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoo", type=Path)
    parser.add_argument("cases", nargs="*", default=["fashion-cnn", "fashion-dscnn", "mnistnet", "mobilenetv2-fashion"])
    options = parser.parse_args()
    print(machine.facts(), flush=True)
    machine.header("case", "cosine of Keras and PyTorch", "TRANSPOSE/PAD, ours / Keras", "arena ours", "Keras", "ratio")
    for name in options.cases:
        case = options.zoo / name
        assert find_source(model_of(case)).format == "torch"
        with tempfile.TemporaryDirectory(prefix="edgepack-arena-") as text:
            folder = Path(text)
            (folder / "plenty.toml").write_text(PLENTY, encoding="utf-8")
            built = build(
                model_of(case),
                str(folder / "plenty.toml"),
                calibration=str(case / "cal.npz"),
                output=folder / "ours.edgepack",
            )
            with BundleReader(built.bundle) as reader:
                (folder / "ours.tflite").write_bytes(reader.read(built.manifest.model))
            keras, least = keras_file(case, folder)
            ours, theirs = built.manifest.facts["arena_bytes"], arena(keras)
            counts = f"{told(folder / 'ours.tflite')} / {told(keras)}"
            machine.row(name, f"{least:.7f}", counts, f"{ours:,}", f"{theirs:,}", f"{ours / theirs:.3f}")


if __name__ == "__main__":
    main()
