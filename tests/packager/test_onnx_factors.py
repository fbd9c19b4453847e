"""Constants before convolutions: folded where that is exact, left where a pad or another reader comes between."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from packager.onnx_factors import fold_factors
from packager.onnx_model import load_model
from tests.packager import models

A, B = np.float32([[[0.5]], [[-2]], [[4]]]), np.float32([[[0.1]], [[0.2]], [[-0.3]]])
KERNEL = models.weights(4, 3, 3, 3, seed=1)


def net(tmp_path, nodes, constants, out="y"):
    path = models.save(
        tmp_path / "net.onnx",
        nodes,
        [models.tensor("x", [1, 3, 8, 8])],
        [models.tensor(out, [None] * 4)],
        constants,
    )
    return load_model(path)


def run(model):
    image = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {"x": image})[0]


def kinds(model):
    return [node.op_type for node in model.graph.node]


def conv(given, pad, name="conv", **more):
    return helper.make_node("Conv", [given, "w"], ["y"], name=name, pads=[pad] * 4, **more)


def folded(model, gone, left):
    before = run(model)
    assert fold_factors(model) == gone
    onnx.checker.check_model(model)
    np.testing.assert_allclose(run(model), before, rtol=1e-4, atol=1e-5)
    assert kinds(model) == left


@pytest.mark.parametrize(("pad", "gone", "left"), [(0, 2, ["Conv"]), (1, 1, ["Add", "Conv"])])
def test_what_is_added_stays_before_a_pad_and_what_multiplies_goes_past_it(tmp_path, pad, gone, left):
    nodes = [
        helper.make_node("Mul", ["a", "x"], ["ax"], name="mul"),
        helper.make_node("Add", ["ax", "b"], ["axb"], name="add"),
        conv("axb", pad),
    ]
    folded(net(tmp_path, nodes, [("a", A), ("b", B), ("w", KERNEL)]), gone, left)


def test_a_division_a_subtraction_and_a_depthwise_layer(tmp_path):
    nodes = [
        helper.make_node("Div", ["x", "a"], ["d"], name="div"),
        helper.make_node("Sub", ["d", "b"], ["s"], name="sub"),
        conv("s", 0, group=3),
    ]
    constants = [("a", np.float32([3])), ("b", B), ("w", models.weights(3, 1, 3, 3, seed=2))]
    model = net(tmp_path, nodes, constants)
    folded(model, 2, ["Conv"])
    assert {tensor.name for tensor in model.graph.initializer} == set(model.graph.node[0].input) - {"x"}


@pytest.mark.parametrize(
    ("constant", "nodes"),
    [
        (A, [helper.make_node("Relu", ["ax"], ["y2"], name="reader")]),  # another reads what is multiplied
        (
            np.float32([0, 1, 2]).reshape(3, 1, 1),
            [],
        ),  # a channel that is nothing afterwards cannot be divided out of a sum
        (np.float32(range(1, 9)), []),  # along the width
    ],
    ids=["another reader", "a zero", "not by channel"],
)
def test_what_cannot_be_folded_is_left(tmp_path, constant, nodes):
    mul = helper.make_node("Mul", ["x", "a"], ["ax"], name="mul")
    model = net(tmp_path, [mul, conv("ax", 1), *nodes], [("a", constant), ("w", KERNEL)])
    if nodes:
        model.graph.output.append(models.tensor("y2", [None] * 4))
    before = model.SerializeToString()
    assert fold_factors(model) == 0
    assert model.SerializeToString() == before


def test_weights_that_two_layers_share_are_left(tmp_path):
    nodes = [
        helper.make_node("Mul", ["x", "a"], ["ax"], name="mul"),
        conv("ax", 1),
        helper.make_node("Conv", ["x", "w"], ["z"], name="other", pads=[1] * 4),
    ]
    model = net(tmp_path, nodes, [("a", A), ("w", KERNEL)])
    model.graph.output.append(models.tensor("z", [None] * 4))
    assert fold_factors(model) == 0


def test_what_a_branch_reads_from_outside_is_left(tmp_path):
    mul = helper.make_node("Mul", ["x", "a"], ["ax"], name="mul")
    read = helper.make_node("Identity", ["ax"], ["z"])
    branch = helper.make_graph([read], "branch", [], [models.tensor("z", [1, 3, 8, 8])])
    either = helper.make_node("If", ["yes"], ["seen"], name="if", then_branch=branch, else_branch=branch)
    model = net(tmp_path, [mul, conv("ax", 1), either], [("a", A), ("w", KERNEL), ("yes", np.array(True))])
    assert fold_factors(model) == 0
