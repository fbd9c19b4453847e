"""Small ONNX models for the tests of TensorRT's rules."""

import numpy as np
import onnx
from onnx import TensorProto, helper


def model(
    nodes, initializers=(), *, opset=17, shape=(1, 3, 8, 8), out=TensorProto.FLOAT, dtype=TensorProto.FLOAT, domains=()
):
    """A model from `x` to `y`."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info("y", out, None)],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in initializers],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=min(10, 8 if opset < 19 else 9))


def quantized(point=0, kind="int8", bias=None):
    """x through a Q/DQ pair into a convolution with quantised weights and, where given, a quantised bias."""
    rng = np.random.default_rng(0)
    weights = rng.integers(-100, 100, (4, 3, 3, 3)).astype("int8")
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "zp"], ["xq"], "quantize"),
        helper.make_node("DequantizeLinear", ["xq", "s", "zp"], ["xd"], "dequantize"),
        helper.make_node("DequantizeLinear", ["w", "ws"], ["wd"], "weights"),
    ]
    initializers = [
        ("s", np.float32(0.05)),
        ("zp", np.asarray(point, dtype=kind)),
        ("w", weights),
        ("ws", np.float32(0.01)),
    ]
    inputs = ["xd", "wd"]
    if bias is not None:
        nodes.append(helper.make_node("DequantizeLinear", ["b", "bs"], ["bd"], "bias"))
        initializers += [("b", np.asarray(bias, dtype="int32")), ("bs", np.float32(0.0005))]
        inputs.append("bd")
    nodes.append(helper.make_node("Conv", inputs, ["y"], "conv"))
    return model(nodes, initializers)


def run(one, x):
    """y, computed by onnxruntime without optimisations."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(one.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]
