"""What every benchmark shares: the machine and its load, models made on the spot, and ratios with their spread."""

from __future__ import annotations

import os
import platform
import statistics
import sys
from importlib import metadata
from pathlib import Path


def facts():
    """One line about the machine, one about what runs on it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("numpy", "onnx", "onnxruntime", "click"))
    return f"{os.cpu_count()} x {model}, Linux {platform.release()}; Python {platform.python_version()}, {versions}"


def load():
    return f"load {os.getloadavg()[0]:.1f} over the last minute"


def is_loaded():
    """Whether other work takes the processor away: wall-clock times then say more about that than about us."""
    return os.getloadavg()[0] > (os.cpu_count() or 1)


def command():
    return " ".join(["python -m", f"benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]])


def spread(values):
    """Median, with the least and the greatest."""
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def row(*cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def header(*cells):
    row(*cells)
    row(*["---"] * len(cells))


def conv_net(path, *, size, channels, blocks, hidden=0):
    """A convolutional classifier with random weights: `blocks` 3x3 convolutions of `channels`, then a dense layer or two."""
    import numpy as np
    from onnx import helper, numpy_helper

    random = np.random.default_rng(7)
    nodes, weights, last, width, side = [], [], "input", 3, size

    def add(name, shape):
        scale = float(np.sqrt(2 / np.prod(shape[1:])))
        array = (random.standard_normal(shape) * scale).astype(np.float32)
        weights.append(numpy_helper.from_array(array, name))
        return name

    def node(kind, inputs, result, **attributes):
        nodes.append(helper.make_node(kind, inputs, [result], name=f"{kind}_{result}", **attributes))
        return result

    for index in range(blocks):
        stride = 2 if index % 2 == 0 and side > 8 else 1
        side //= stride
        weight = add(f"w{index}", (channels, width, 3, 3))
        last = node("Conv", [last, weight], f"c{index}", strides=[stride, stride], pads=[1, 1, 1, 1])
        last, width = node("Relu", [last], f"r{index}"), channels
    last, width = node("Flatten", [last], "flat"), width * side * side
    if hidden:
        last, width = node("Gemm", [last, add("wh", (hidden, width))], "hidden", transB=1), hidden
    node("Gemm", [last, add("wo", (10, width))], "output", transB=1)
    return save_net(path, nodes, weights, [1, 3, size, size])


def dense_net(path, *, width, layers):
    """Dense layers only: a model of a few microseconds."""
    import numpy as np
    from onnx import helper, numpy_helper

    random = np.random.default_rng(7)
    nodes, weights, last = [], [], "input"
    for index in range(layers):
        array = (random.standard_normal((width, width)) / np.sqrt(width)).astype(np.float32)
        weights.append(numpy_helper.from_array(array, f"w{index}"))
        result = "output" if index == layers - 1 else f"d{index}"
        nodes.append(helper.make_node("Gemm", [last, f"w{index}"], [result], transB=1, name=f"dense{index}"))
        last = result
    return save_net(path, nodes, weights, [1, width], width)


def save_net(path, nodes, weights, shape, classes=10):
    """A float model of one input and one output, checked and written."""
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, classes])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def samples(path, shape):
    """Noise as calibration data for the models above."""
    import numpy as np

    np.savez(path, input=np.random.default_rng(7).standard_normal(shape).astype(np.float32))
    return path
