"""Small TFLite models written by hand: no converter, no torch, made in milliseconds."""

from __future__ import annotations

import numpy as np
import pytest

try:
    from ai_edge_litert.tools import flatbuffer_utils

    fb = flatbuffer_utils.schema_fb
except ImportError:
    fb = None

needs_tflite = [pytest.mark.tflite, pytest.mark.skipif(fb is None, reason="the tflite extra is not installed")]
_KINDS = {"float32": 0, "int32": 2, "int8": 9, "resource": 13}


class Graph:
    """A model being written: `tensor` and `op` return places; `raw` is the file."""

    def __init__(self):
        self.model = fb.ModelT()
        self.model.version, self.model.description = 3, b"test"
        empty = fb.BufferT()
        self.model.buffers, self.model.operatorCodes = [empty], []
        self.graph = fb.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.model.subgraphs = [self.graph]

    def tensor(self, name, shape, values=None, dtype="float32"):
        tensor = fb.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name.encode(), list(shape), _KINDS[dtype], 0
        if values is not None:
            buffer = fb.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(values, dtype).tobytes(), np.uint8)
            self.model.buffers.append(buffer)
            tensor.buffer = len(self.model.buffers) - 1
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def op(self, name, inputs, outputs, options=None, kind=None):
        number = getattr(fb.BuiltinOperator, name)
        code = fb.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), 1
        self.model.operatorCodes.append(code)
        op = fb.OperatorT()
        op.opcodeIndex, op.inputs, op.outputs = len(self.model.operatorCodes) - 1, inputs, outputs
        if options is not None:
            op.builtinOptions, op.builtinOptionsType = options, getattr(fb.BuiltinOptions, kind)
        self.graph.operators.append(op)
        return outputs[0] if outputs else -1

    def raw(self, inputs, outputs):
        self.graph.inputs, self.graph.outputs = inputs, outputs
        return bytes(flatbuffer_utils.convert_object_to_bytearray(self.model))


def conv(graph, source, name, shape, kernel, stride=1, padding="VALID", depthwise=False, relu=True, seed=0):
    """A convolution with random weights; `shape` is its output's, `kernel` the weights'."""
    rng = np.random.default_rng(seed)
    weights = graph.tensor(f"{name}/w", kernel, rng.normal(0, 0.4, kernel))
    bias = graph.tensor(f"{name}/b", [shape[-1]], rng.normal(0, 0.2, shape[-1]))
    out = graph.tensor(name, shape)
    options = fb.DepthwiseConv2DOptionsT() if depthwise else fb.Conv2DOptionsT()
    options.strideH = options.strideW = stride
    options.dilationHFactor = options.dilationWFactor = 1
    options.padding = getattr(fb.Padding, padding)
    options.fusedActivationFunction = fb.ActivationFunctionType.RELU if relu else 0
    if depthwise:
        options.depthMultiplier = 1
    kind = "DepthwiseConv2DOptions" if depthwise else "Conv2DOptions"
    return graph.op("DEPTHWISE_CONV_2D" if depthwise else "CONV_2D", [source, weights, bias], [out], options, kind)


def pad(graph, source, name, shape, amounts=((0, 0), (1, 1), (1, 1), (0, 0))):
    """A PAD of zeros."""
    places = graph.tensor(f"{name}/amounts", [4, 2], np.array(amounts), "int32")
    return graph.op("PAD", [source, places], [graph.tensor(name, shape)], fb.PadOptionsT(), "PadOptions")


def pool(graph, source, name, shape, kind="MAX_POOL_2D", size=2):
    """A pool with window = stride."""
    options = fb.Pool2DOptionsT()
    options.filterHeight = options.filterWidth = options.strideH = options.strideW = size
    options.padding = fb.Padding.VALID
    return graph.op(kind, [source], [graph.tensor(name, shape)], options, "Pool2DOptions")


def dense(graph, source, name, n, m, seed=0):
    """FULLY_CONNECTED."""
    rng = np.random.default_rng(seed)
    weights = graph.tensor(f"{name}/w", [m, n], rng.normal(0, 0.2, (m, n)))
    bias = graph.tensor(f"{name}/b", [m], rng.normal(0, 0.2, m))
    inputs, out = [source, weights, bias], graph.tensor(name, [1, m])
    return graph.op("FULLY_CONNECTED", inputs, [out], fb.FullyConnectedOptionsT(), "FullyConnectedOptions")


def reshape(graph, source, name, shape):
    """RESHAPE."""
    target = graph.tensor(f"{name}/shape", [len(shape)], np.array(shape), "int32")
    options = fb.ReshapeOptionsT()
    options.newShape = list(shape)
    return graph.op("RESHAPE", [source, target], [graph.tensor(name, shape)], options, "ReshapeOptions")


def softmax(graph, source, name, shape):
    """SOFTMAX."""
    options = fb.SoftmaxOptionsT()
    options.beta = 1.0
    return graph.op("SOFTMAX", [source], [graph.tensor(name, shape)], options, "SoftmaxOptions")


def add(graph, left, right, name, shape):
    """ADD."""
    return graph.op("ADD", [left, right], [graph.tensor(name, shape)], fb.AddOptionsT(), "AddOptions")


def mean(graph, source, name, shape):
    """MEAN over height and width."""
    axes = graph.tensor(f"{name}/axes", [2], np.array([1, 2]), "int32")
    options = fb.ReducerOptionsT()
    options.keepDims = len(shape) == 4
    return graph.op("MEAN", [source, axes], [graph.tensor(name, shape)], options, "ReducerOptions")


def classifier(size=8, classes=5):
    """conv, depthwise, residual sum, strided conv behind a PAD, pools, dense, softmax: an input `image` of size x size x 3."""
    g = Graph()
    image = g.tensor("image", [1, size, size, 3])
    first = conv(g, image, "first", [1, size, size, 8], [8, 3, 3, 3], padding="SAME", seed=1)
    second = conv(g, first, "second", [1, size, size, 8], [1, 3, 3, 8], padding="SAME", depthwise=True, seed=2)
    both = add(g, first, second, "both", [1, size, size, 8])
    padded = pad(g, both, "padded", [1, size + 2, size + 2, 8])
    half = size // 2
    third = conv(g, padded, "third", [1, half, half, 12], [12, 3, 3, 8], stride=2, relu=False, seed=3)
    pooled = pool(g, third, "pooled", [1, half // 2, half // 2, 12])
    flat = reshape(g, pooled, "flat", [1, (half // 2) ** 2 * 12])
    scores = dense(g, flat, "scores", (half // 2) ** 2 * 12, classes, seed=4)
    return g.raw([image], [softmax(g, scores, "probabilities", [1, classes])])


def averaging(size=8):
    """conv, average pool, mean, dense: the other half of the operators."""
    g = Graph()
    image = g.tensor("image", [1, size, size, 3])
    first = conv(g, image, "first", [1, size, size, 8], [8, 3, 3, 3], padding="SAME", relu=False, seed=5)
    pooled = pool(g, first, "pooled", [1, size // 2, size // 2, 8], kind="AVERAGE_POOL_2D")
    middle = mean(g, pooled, "middle", [1, 8])
    return g.raw([image], [dense(g, middle, "scores", 8, 4, seed=6)])


def running_sum(size=4):
    """A streaming model: `total` is the sum of all that `chunk` has been since the model was loaded."""
    g = Graph()

    def handle(name):
        options = fb.VarHandleOptionsT()
        options.container, options.sharedName = b"", b"state"
        return g.op("VAR_HANDLE", [], [g.tensor(name, [1], dtype="resource")], options, "VarHandleOptions")

    chunk = g.tensor("chunk", [1, size])
    once = fb.CallOnceOptionsT()
    once.initSubgraphIndex = 1
    g.op("CALL_ONCE", [], [], once, "CallOnceOptions")
    state = handle("state")
    before = g.op("READ_VARIABLE", [state], [g.tensor("before", [1, size])])
    after = add(g, before, chunk, "total", [1, size])
    g.op("ASSIGN_VARIABLE", [state, after], [])
    main, g.graph = g.graph, fb.SubGraphT()
    main.inputs, main.outputs = [chunk], [after]
    g.graph.tensors, g.graph.operators, g.graph.name = [], [], b"init"
    g.model.subgraphs.append(g.graph)
    g.op("ASSIGN_VARIABLE", [handle("state_"), g.tensor("zeros", [1, size], np.zeros((1, size)))], [])
    return g.raw([], [])


def built(folder, raw, recipe="int8", target="linux-x86-64", feeds=None, **more):
    """The bundle that edgepack makes of a model in `folder`, calibrated on `feeds`: of a Built."""
    from packager.pipeline import build

    (folder / "net.tflite").write_bytes(raw)
    np.savez(folder / "cal.npz", image=samples() if feeds is None else feeds)
    options = {"runtime": "tflite", "calibration": str(folder / "cal.npz") if recipe != "fp32" else None, **more}
    return build(str(folder / "net.tflite"), target, recipe=recipe, output=folder / "net.edgepack", **options)


def samples(count=16, size=8, seed=0):
    """Inputs for both."""
    return np.random.default_rng(seed).standard_normal((count, size, size, 3)).astype("float32")
