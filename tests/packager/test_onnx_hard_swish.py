"""HardSwish written as arithmetic becomes one node, where it is that and nothing else."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from packager.onnx_hard_swish import has_hard_swish, join_hard_swish


def sigmoid(alpha=1 / 6, beta=0.5):
    gate = helper.make_node("HardSigmoid", ["x"], ["g"], alpha=alpha, beta=beta)
    return [gate, helper.make_node("Mul", ["g", "x"], ["y"])]


def divided_last(most="six"):
    return [
        helper.make_node("Add", ["x", "three"], ["a"]),
        helper.make_node("Clip", ["a", "zero", most], ["c"]),
        helper.make_node("Mul", ["x", "c"], ["m"]),
        helper.make_node("Div", ["m", "six"], ["y"]),
    ]


def scaled_first():
    return [
        helper.make_node("Add", ["three", "x"], ["a"]),
        helper.make_node("Clip", ["a", "zero", "six"], ["c"]),
        helper.make_node("Mul", ["c", "sixth"], ["s"]),
        helper.make_node("Mul", ["s", "x"], ["y"]),
    ]


def model(nodes, opset=14):
    value = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2, 5]) for name in ("x", "y")]
    numbers = {"three": 3.0, "zero": 0.0, "six": 6.0, "sixth": 1 / 6, "five": 5.0}
    constants = [helper.make_tensor(name, onnx.TensorProto.FLOAT, [], [number]) for name, number in numbers.items()]
    graph = helper.make_graph(nodes, "g", value[:1], value[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run(model):
    x = np.linspace(-5, 5, 10, dtype="float32").reshape(2, 5)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("nodes", [sigmoid(), divided_last(), scaled_first()], ids=["sigmoid", "last", "first"])
def test_it_becomes_one_node_that_gives_the_same(nodes):
    made = model(nodes)
    before = run(made)
    assert has_hard_swish(made)
    assert join_hard_swish(made) == 1
    onnx.checker.check_model(made, full_check=True)
    assert [node.op_type for node in made.graph.node] == ["HardSwish"]
    assert abs(run(made) - before).max() < 1e-6


def shared():
    """The gate has another user: it must stay."""
    return [*sigmoid()[:1], helper.make_node("Mul", ["g", "x"], ["m"]), helper.make_node("Add", ["m", "g"], ["y"])]


@pytest.mark.parametrize(
    "nodes",
    [sigmoid(alpha=0.2), sigmoid(beta=0.4), divided_last("five"), shared(), [helper.make_node("Relu", ["x"], ["y"])]],
    ids=["slope", "offset", "limit", "shared", "none"],
)
def test_what_is_not_quite_it_stays(nodes):
    made = model(nodes)
    before = made.SerializeToString()
    assert not has_hard_swish(made)
    assert join_hard_swish(made) == 0
    assert made.SerializeToString() == before
