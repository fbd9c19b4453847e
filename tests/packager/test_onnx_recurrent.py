"""An LSTM written step by step computes what the operator does."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, checker, helper, numpy_helper

from packager.onnx_recurrent import MOST_STEPS, unroll


def lstm(*, direction="forward", steps=5, batch=2, begin="", bias=True, opset=17, outputs=("y", "h", "c"), **settings):
    """Inputs 4, hidden 3; `begin`: the state to begin with is "given", or "zeros"."""
    rng, ways, hidden = np.random.default_rng(0), 2 if direction == "bidirectional" else 1, 3
    constants = {
        "w": rng.normal(0, 0.5, (ways, 4 * hidden, 4)),
        "r": rng.normal(0, 0.5, (ways, 4 * hidden, hidden)),
        "b": rng.normal(0, 0.5, (ways, 8 * hidden)),
        "zeros": np.zeros((ways, batch, hidden)),
    }
    states = {"": ["", ""], "zeros": ["zeros", "zeros"], "given": ["h0", "c0"]}[begin]
    inputs = ["x", "w", "r", "b" if bias else "", "", *states]
    node = helper.make_node(
        "LSTM", inputs, list(outputs), direction=direction, hidden_size=hidden, name="net", **settings
    )
    sides = {"x": [steps, batch, 4], "y": [steps, ways, batch, hidden]}
    sides |= {name: [ways, batch, hidden] for name in ("h0", "c0", "h", "c")}
    given = ["x", *([] if begin != "given" else states)]
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in sides.items()}
    graph = helper.make_graph(
        [node],
        "g",
        [values[name] for name in given],
        [values[name] for name in outputs if name],
        [numpy_helper.from_array(value.astype("float32"), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run(model):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(1)
    return session.run(
        None, {one.name: rng.standard_normal(one.shape).astype("float32") for one in session.get_inputs()}
    )


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("begin", ["", "zeros", "given"])
def test_same_outputs_in_every_direction_and_from_any_state(direction, begin):
    model = lstm(direction=direction, begin=begin)
    wanted = run(model)
    made, count = unroll(model)
    checker.check_model(made)
    assert count == 1
    assert "LSTM" not in [node.op_type for node in made.graph.node]
    for left, right in zip(wanted, run(made), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [{"steps": 1}, {"batch": 1}, {"bias": False}, {"opset": 11}, {"outputs": ("", "h")}, {"outputs": ("y",)}],
    ids=str,
)
def test_same_outputs_in_other_forms(options):
    model = lstm(direction="bidirectional", **options)
    wanted = run(model)
    made, count = unroll(model)
    assert count == 1
    for left, right in zip(wanted, run(made), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-6)


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("begin", ["", "given"])
def test_plain_rnn(direction, begin):
    model = lstm(direction=direction, begin=begin, outputs=("y", "h"))
    node = model.graph.node[0]
    node.op_type = "RNN"
    del node.input[6:]
    for tensor in model.graph.initializer:
        if tensor.name in ("w", "r", "b"):
            values = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(values[:, : values.shape[1] // 4].copy(), tensor.name))
    del model.graph.input[2:]
    wanted = run(model)
    made, count = unroll(model)
    assert count == 1
    for left, right in zip(wanted, run(made), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [{"clip": 3.0}, {"activations": ["Sigmoid", "Relu", "Tanh"]}, {"steps": MOST_STEPS + 1}, {"input_forget": 1}],
)
def test_what_computes_something_else_or_is_too_long_stays(options):
    made, count = unroll(lstm(**options))
    assert count == 0
    assert [node.op_type for node in made.graph.node] == ["LSTM"]
