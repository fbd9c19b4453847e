"""A model of a few hundred bytes that needs as much memory as one likes: one number, spread wide, and its maximum."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write(path, values):
    """Writes the ONNX model whose widest tensors hold `values` floats (4 bytes each, two of them at a time)."""
    nodes = [
        helper.make_node("Expand", ["x", "shape"], ["wide"]),
        helper.make_node("Exp", ["wide"], ["grown"]),
        helper.make_node("Add", ["grown", "wide"], ["sum"]),
        helper.make_node("ReduceMax", ["sum"], ["y"], axes=[1], keepdims=1),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1]) for name in "xy"]
    shape = numpy_helper.from_array(np.array([1, values], np.int64), "shape")
    graph = helper.make_graph(nodes, "wide", ends[:1], ends[1:], [shape])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path
