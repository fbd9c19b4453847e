"""Smoothed channels between convolutions: the same function, no operator more, less noise; nothing where it is not exact."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from packager.calibration import CalibrationData
from packager.compress.quantize.onnx_static import quantize_static
from packager.compress.smooth_channels import smooth_channels
from packager.onnx_model import load_model, model_inputs
from packager.recipe import Recipe
from tests.packager import models

RECIPE = Recipe("r", "int8", weight_type="uint8", activation_type="uint8")
UNEVEN = np.float32([0.02, 1, 8, 60])


def conv(given, name, out, **more):
    return helper.make_node("Conv", [given, f"w_{name}", f"b_{name}"], [out], name=name, **more)


def weights(name, *shape, seed, out=None, into=None):
    """A layer's weights and bias, its output channels multiplied with `out`, its input channels divided by `into`."""
    values, bias = models.weights(*shape, seed=seed), models.weights(shape[0], seed=seed + 50)
    if out is not None:
        values, bias = values * out.reshape(-1, *[1] * (len(shape) - 1)), bias * out
    if into is not None:
        axis = 0 if shape[1] == 1 else 1
        values = values / into.reshape([-1 if place == axis else 1 for place in range(len(shape))])
    return [(f"w_{name}", values.astype(np.float32)), (f"b_{name}", bias.astype(np.float32))]


def saved(tmp_path, nodes, constants, out, shape):
    path = tmp_path / "net.onnx"
    return models.save(path, nodes, [models.tensor("x", [1, 3, 8, 8])], [models.tensor(out, shape)], constants)


@pytest.fixture
def residual(tmp_path):
    """conv, ReLU, depthwise; a sum with a short cut; a gate from its own mean; pool, flatten, dense: all uneven."""
    nodes = [
        conv("x", "first", "a", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["r"], name="relu"),
        conv("r", "deep", "d", pads=[1] * 4, group=4),
        conv("x", "short", "s"),
        helper.make_node("Add", ["d", "s"], ["sum"], name="sum"),
        helper.make_node("GlobalAveragePool", ["x"], ["mean"], name="mean"),
        conv("mean", "gate", "g0"),
        helper.make_node("Sigmoid", ["g0"], ["g"], name="sigmoid"),
        helper.make_node("Mul", ["g", "sum"], ["gated"], name="gated"),
        helper.make_node("GlobalAveragePool", ["gated"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w_last", "b_last"], ["y"], name="last", transB=1),
    ]
    constants = [
        *weights("first", 4, 3, 3, 3, seed=1, out=UNEVEN),
        *weights("deep", 4, 1, 3, 3, seed=2, out=UNEVEN[::-1], into=UNEVEN),
        *weights("short", 4, 3, 1, 1, seed=3, out=UNEVEN[::-1]),
        *weights("gate", 4, 3, 1, 1, seed=4),
        *weights("last", 5, 4, seed=5, into=UNEVEN[::-1]),
    ]
    return saved(tmp_path, nodes, constants, "y", [1, 5])


@pytest.fixture
def affine(tmp_path):
    """A layer, a learned scale and shift, a gentle curve, another scale and shift, a layer; as in PP-LCNetV3."""
    nodes = [
        conv("x", "first", "a", pads=[1] * 4),
        helper.make_node("Mul", ["one", "a"], ["m"], name="scale1"),
        helper.make_node("Add", ["m", "two"], ["n"], name="shift1"),
        helper.make_node("Tanh", ["n"], ["t"], name="curve"),
        helper.make_node("Div", ["t", "one"], ["u"], name="scale2"),
        helper.make_node("Add", ["two", "u"], ["v"], name="shift2"),
        conv("v", "last", "y"),
    ]
    constants = [
        ("one", np.float32([0.3])),
        ("two", np.float32(0.1)),
        *weights("first", 4, 3, 3, 3, seed=1, out=UNEVEN / 60),
        *weights("last", 5, 4, 1, 1, seed=2, into=UNEVEN / 60),
    ]
    return saved(tmp_path, nodes, constants, "y", [1, 5, 8, 8])


def feeds(path, count=24):
    arrays = np.random.default_rng(0).standard_normal((count, 3, 8, 8)).astype(np.float32)
    return CalibrationData("npz", {"x": arrays}, model_inputs(load_model(path)))


def outputs(model, data):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return np.concatenate([session.run(["y"], {"x": one[None]})[0] for one in data.arrays["x"]])


def noise(path, data, tmp_path, **changes):
    recipe = Recipe("r", "int8", weight_type="uint8", activation_type="uint8", **changes)
    found = quantize_static(path, tmp_path / "int8.onnx", data, recipe, lambda _: None)
    assert [one.code for one in found if one.code == "smoothed"] == ["smoothed"] * bool(changes.get("smooth"))
    wanted = outputs(load_model(path), data)
    return float(((outputs(load_model(tmp_path / "int8.onnx"), data) - wanted) ** 2).sum() / (wanted**2).sum())


@pytest.mark.parametrize(("name", "groups"), [("residual", 2), ("affine", 2)])
def test_channels_are_evened_out_and_the_function_stays(request, tmp_path, name, groups):
    path = request.getfixturevalue(name)
    data, model = feeds(path), load_model(path)
    before = [node.op_type for node in model.graph.node]
    assert smooth_channels(model, data, RECIPE) == groups
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == before
    np.testing.assert_allclose(outputs(model, data), outputs(load_model(path), data), rtol=1e-4, atol=1e-5)
    plain = noise(path, data, tmp_path)
    assert noise(path, data, tmp_path, smooth=True) < plain / 2


def test_a_constant_that_others_read_is_left_to_them(affine):
    model = load_model(affine)
    assert smooth_channels(model, feeds(affine), RECIPE) == 2
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert values["one"].tolist() == [np.float32(0.3)]
    nodes = {node.name: node for node in model.graph.node}
    assert {
        values[name].size for node in ("scale1", "scale2", "shift2") for name in nodes[node].input if name in values
    } == {4}
    assert values[nodes["shift1"].input[1]].size == 1  # behind the curve's own scale nothing is moved


def test_a_scale_for_all_channels_of_the_weights_is_no_case_for_it(residual):
    assert smooth_channels(load_model(residual), feeds(residual), Recipe("r", "int8", per_channel=False)) == 0


@pytest.mark.parametrize("kind", ["Clip", "Sigmoid"])
def test_an_activation_that_does_not_scale_is_left_alone(residual, kind):
    model = load_model(residual)
    relu = next(node for node in model.graph.node if node.name == "relu")
    relu.op_type = kind
    if kind == "Clip":
        model.graph.initializer.extend(
            onnx.numpy_helper.from_array(np.float32(v), n) for n, v in (("lo", 0), ("hi", 6))
        )
        relu.input.extend(["lo", "hi"])
    first = next(t for t in model.graph.initializer if t.name == "w_first").raw_data
    assert smooth_channels(model, feeds(residual), RECIPE) == 1  # the sum
    assert next(t for t in model.graph.initializer if t.name == "w_first").raw_data == first


def test_what_a_branch_reads_from_outside_is_left_alone(residual):
    model = load_model(residual)
    inner = helper.make_graph(
        [helper.make_node("Identity", ["r"], ["z"])], "branch", [], [models.tensor("z", [1, 4, 8, 8])]
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.append(helper.make_node("If", ["yes"], ["seen"], name="if", then_branch=inner, else_branch=inner))
    model.graph.output.append(models.tensor("seen", [1, 4, 8, 8]))
    assert smooth_channels(model, feeds(residual), RECIPE) == 1  # the sum; not what the ReLU gives
