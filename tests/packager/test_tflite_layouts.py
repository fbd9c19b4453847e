"""Channels first or last, where the shape does not tell: the values do; and the way back on request."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from packager.tflite_layouts import CHANNELS_LAST, back, is_turned, orders, orders_by_values, reordered
from packager.tflite_model import model_inputs, operator_counts, parse_model, rename, to_bytes
from tests.tflite_models import Graph, fb, needs_tflite

pytestmark = needs_tflite
WEIGHTS = np.random.default_rng(3).normal(0, 1, (4, 3, 3, 3)).astype("float32")


def source(path):
    """A convolution of 3x6x6 to 4x4x4."""
    sides = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", [1, 3, 6, 6]), ("y", [1, 4, 4, 4]))
    ]
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    graph = helper.make_graph(nodes, "g", sides[:1], sides[1:], [numpy_helper.from_array(WEIGHTS, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def converted():
    """The same with channels last."""
    g = Graph()
    x = g.tensor("x", [1, 6, 6, 3])
    options = fb.Conv2DOptionsT()
    options.strideH = options.strideW = options.dilationHFactor = options.dilationWFactor = 1
    options.padding = fb.Padding.VALID
    weights = g.tensor("w", [4, 3, 3, 3], WEIGHTS.transpose(0, 2, 3, 1))
    bias = g.tensor("b", [4], np.zeros(4))
    y = g.op("CONV_2D", [x, weights, bias], [g.tensor("y", [1, 4, 4, 4])], options, "Conv2DOptions")
    return parse_model(g.raw([x], [y]))


@pytest.mark.parametrize(
    ("before", "after", "turned"),
    [
        ([1, 3, 8, 8], [1, 8, 8, 3], True),
        (["n", 3, 8, 8], [1, 3, 8, 8], False),
        ([1, 4, 4, 4], [1, 4, 4, 4], None),
        ([1, 3, 8], [1, 8, 3], False),
    ],
)
def test_shapes_tell_the_order_of_the_axes_or_do_not(before, after, turned):
    assert is_turned(before, after) is turned


def test_values_tell_what_a_cube_shaped_output_does_not(tmp_path):
    import dataclasses

    model = converted()
    inputs = [dataclasses.replace(spec, layout="nhwc") for spec in model_inputs(model)]
    path = source(tmp_path / "net.onnx")
    doubtful = {0: orders([1, 4, 4, 4], [1, 4, 4, 4])}
    assert orders_by_values(path, model, inputs, doubtful) == {0: CHANNELS_LAST}
    first = reordered(converted(), {0: back(CHANNELS_LAST)})
    assert orders_by_values(path, first, inputs, doubtful) == {0: (0, 1, 2, 3)}


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ([1, 3549, 6], [1, 6, 3549], [(0, 2, 1)]),
        (["n", 22, "boxes"], [1, 22, 2100], [(0, 1, 2)]),
        ([1, 64, 64], [1, 64, 64], [(0, 1, 2), (0, 2, 1)]),
        ([1, 1, 63], [1, 1, 63], [(0, 1, 2)]),
        ([1, 3, 8, 4], [1, 8, 4, 3], [CHANNELS_LAST]),
        ([1, 3, 8, 4], [1, 4, 8, 3], [(0, 3, 2, 1)]),
        ([7, 1, 5], [1, 7, 5], [(1, 0, 2)]),
        ([1, 10], [1, 10], [(0, 1)]),
        ([1, 10], [1, 12], []),
        ([1, 10], [1, 10, 1], []),
    ],
)
def test_sizes_tell_the_orders_in_which_an_output_may_have_come(before, after, found):
    assert orders(before, after) == found
    assert all([after[place] for place in back(order)] == _sizes(before, after, order) for order in found)


def _sizes(before, after, order):
    """`before` with the free sizes that `after` has given it."""
    return [after[order.index(axis)] if isinstance(size, str) else size for axis, size in enumerate(before)]


def test_output_comes_back_to_channels_first(tmp_path):
    import onnxruntime
    from ai_edge_litert.interpreter import Interpreter

    model = reordered(converted(), {0: back(CHANNELS_LAST)})
    assert operator_counts(model)["TRANSPOSE"] == 1
    rename(model, ["x"], ["y"])
    interpreter = Interpreter(model_content=to_bytes(model))
    interpreter.allocate_tensors()
    value = np.random.default_rng(1).standard_normal((1, 3, 6, 6)).astype("float32")
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], value.transpose(0, 2, 3, 1))
    interpreter.invoke()
    session = onnxruntime.InferenceSession(str(source(tmp_path / "net.onnx")), providers=["CPUExecutionProvider"])
    (truth,) = session.run(None, {"x": value})
    np.testing.assert_allclose(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]), truth, atol=1e-4)
