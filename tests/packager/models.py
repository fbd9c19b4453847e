"""Tiny models and data for the tests, made with onnx.helper; the same numbers every time."""

import json
import zipfile
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT
SIDE = 8
CLASSES = 10


def weights(*shape, seed=1, scale=0.3):
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def save(path, nodes, inputs, outputs, constants=(), *, opset=17, ir=8, **more):
    """Writes a model of these parts; returns its path. `constants` are (name, array)."""
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, [numpy_helper.from_array(a, n) for n, a in constants])
    imports = [helper.make_opsetid("", opset), *more.pop("domains", [])]
    model = helper.make_model(graph, opset_imports=imports, ir_version=ir, **more)
    onnx.save(model, str(path))
    return Path(path)


def tensor(name, shape, kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def classifier(path, *, batch=1, side=SIDE, opset=17, width=8, ir=8):
    """image[batch, 1, side, side] -> scores[batch, 10]: convolution, rectifier, pooling, matrix product."""
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c1"], name="conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], name="conv2", pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["c2"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten", axis=1),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["scores"], name="gemm", transB=1),
    ]
    constants = [
        ("w1", weights(width, 1, 3, 3, seed=1)),
        ("b1", weights(width, seed=2)),
        ("w2", weights(width, width, 3, 3, seed=3)),
        ("b2", weights(width, seed=4)),
        ("w3", weights(CLASSES, width, seed=5, scale=1.0)),
        ("b3", weights(CLASSES, seed=6)),
    ]
    inputs, outputs = [tensor("image", [batch, 1, side, side])], [tensor("scores", [batch, CLASSES])]
    return save(path, nodes, inputs, outputs, constants, opset=opset, ir=ir)


def linear(path, *, batch=1, opset=17, extra=(), size=4, **more):
    """x[batch, size] -> y[batch, 3]: one matrix product; `extra` are nodes after it that read `m` and write `y`."""
    last = "m" if extra else "y"
    nodes = [helper.make_node("MatMul", ["x", "w"], [last], name="matmul"), *extra]
    outputs = [tensor("y", [batch, 3])]
    return save(path, nodes, [tensor("x", [batch, size])], outputs, [("w", weights(size, 3))], opset=opset, **more)


def images(count=20, side=SIDE, seed=7):
    return np.random.default_rng(seed).standard_normal((count, 1, side, side)).astype(np.float32)


def samples(path, count=20, **arrays):
    """An .npz with `image`, or with the arrays given."""
    np.savez(path, **(arrays or {"image": images(count)}))
    return Path(path)


def run_onnx(model, feed, *, exact=True):
    """The outputs by name, by onnxruntime alone: no code of edgepack is in it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if exact:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


class Opened:
    """A bundle, read with zipfile and json alone."""

    def __init__(self, path, folder):
        with zipfile.ZipFile(path) as archive:
            self.names = archive.namelist()
            archive.extractall(folder)
        self.folder = Path(folder)
        self.manifest = json.loads((self.folder / "manifest.json").read_text())
        self.model_path = self.folder / self.manifest["model"]

    @property
    def model(self):
        return onnx.load(str(self.model_path))

    def golden(self, kind):
        return {one["name"]: np.load(self.folder / one["file"]) for one in self.manifest["golden"][kind]}

    def codes(self):
        return [finding["code"] for finding in self.manifest["findings"]]

    def operators(self):
        return [node.op_type for node in self.model.graph.node]

    def opset(self):
        return next(one.version for one in self.model.opset_import if one.domain == "")


def profile(place, name="mine", **changes):
    """The shipped linux-x86-64 with some lines changed, as a file of the user's own."""
    text = files("profiles").joinpath("linux-x86-64.toml").read_text().replace('"linux-x86-64"', f'"{name}"')
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new)
    path = place / f"{name}.toml"
    path.write_text(text)
    return str(path)


def later_runtime(place):
    """A profile whose only runtime nobody builds for."""
    lines = ('[runtimes.onnxruntime]\nversion = "1.32.0"', '[runtimes.abacus]\nversion = "1.0"')
    return profile(place, default=('runtime = "onnxruntime"', 'runtime = "abacus"'), runtime=lines)


def old_runtime(place, version):
    old = '[runtimes.onnxruntime]\nversion = "1.32.0"'
    return profile(place, version=(old, f'[runtimes.onnxruntime]\nversion = "{version}"'))
