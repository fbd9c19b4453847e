"""Nets made by code for the emulated devices: inverted residuals, a transformer encoder, a chain of dense layers."""

from __future__ import annotations

from benchmarks import machine


class Graph:
    """ONNX nodes and random weights, added one by one."""

    def __init__(self):
        import numpy as np

        self.random = np.random.default_rng(7)
        self.nodes, self.weights = [], []

    def weight(self, *shape):
        """A weight of He's scale (a filter's or a matrix's fan-in)."""
        import numpy as np

        fan_in = shape[0] if len(shape) == 2 else int(np.prod(shape[1:]))
        return self.constant((self.random.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32))

    def constant(self, array):
        from onnx import numpy_helper

        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def node(self, kind, *inputs, result="", **attributes):
        from onnx import helper

        result = result or f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [result], name=f"n{len(self.nodes)}", **attributes))
        return result


def inverted_residuals(path):
    """A MobileNetV2 in small: 3x64x64, a stem and six blocks of expansion 4, ReLU6."""
    import numpy as np

    graph = Graph()
    zero, six = graph.constant(np.float32(0)), graph.constant(np.float32(6))

    def conv(value, inputs, outputs, kernel, stride=1, group=1, *, clip=True):
        weight = graph.weight(outputs, inputs // group, kernel, kernel)
        pads = [kernel // 2] * 4
        value = graph.node("Conv", value, weight, strides=[stride, stride], pads=pads, group=group)
        return graph.node("Clip", value, zero, six) if clip else value

    value, width = conv("input", 3, 16, 3, 2), 16
    for outputs, stride in ((16, 1), (24, 2), (24, 1), (40, 2), (40, 1), (80, 2)):
        start, inner = value, 4 * width
        value = conv(value, width, inner, 1)
        value = conv(value, inner, inner, 3, stride, inner)
        value = conv(value, inner, outputs, 1, clip=False)
        if (outputs, stride) == (width, 1):
            value = graph.node("Add", start, value)
        width = outputs
    value = graph.node("Flatten", graph.node("GlobalAveragePool", value))
    graph.node("Gemm", value, graph.weight(width, 10), result="output")
    return machine.save_net(path, graph.nodes, graph.weights, [1, 3, 64, 64])


def encoder(path, *, tokens=32, width=64, heads=4, layers=2):
    """A transformer encoder on embedded tokens: attention, layer norm before each part, GELU, mean over the tokens."""
    import numpy as np

    graph = Graph()
    split = graph.constant(np.array([1, tokens, heads, width // heads], np.int64))
    join = graph.constant(np.array([1, tokens, width], np.int64))
    ones, zeros = graph.constant(np.ones(width, np.float32)), graph.constant(np.zeros(width, np.float32))
    scale = graph.constant(np.float32((width // heads) ** -0.5))
    root, one, half = (graph.constant(np.float32(value)) for value in (2**0.5, 1, 0.5))

    def norm(value):
        return graph.node("LayerNormalization", value, ones, zeros, axis=-1)

    def head(value, order):
        value = graph.node("Reshape", graph.node("MatMul", value, graph.weight(width, width)), split)
        return graph.node("Transpose", value, perm=order)

    value = "input"
    for _ in range(layers):
        inner = norm(value)
        query, key, content = (head(inner, order) for order in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]))
        weights = graph.node("Softmax", graph.node("Mul", graph.node("MatMul", query, key), scale), axis=-1)
        inner = graph.node("Transpose", graph.node("MatMul", weights, content), perm=[0, 2, 1, 3])
        inner = graph.node("MatMul", graph.node("Reshape", inner, join), graph.weight(width, width))
        value = graph.node("Add", value, inner)
        inner = graph.node("MatMul", norm(value), graph.weight(width, 4 * width))
        bell = graph.node("Add", graph.node("Erf", graph.node("Div", inner, root)), one)
        inner = graph.node("Mul", graph.node("Mul", inner, half), bell)
        value = graph.node("Add", value, graph.node("MatMul", inner, graph.weight(4 * width, width)))
    value = graph.node("ReduceMean", norm(value), axes=[1], keepdims=0)
    graph.node("MatMul", value, graph.weight(width, 10), result="output")
    return machine.save_net(path, graph.nodes, graph.weights, [1, tokens, width])
