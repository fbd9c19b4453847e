"""Smoothed activations: the same function, narrower activations, less noise; nothing where channels are even."""

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from packager.calibration import CalibrationData
from packager.compress.quantize.onnx_static import quantize_static
from packager.compress.smooth import smooth
from packager.onnx_model import load_model, model_inputs
from packager.recipe import Recipe
from tests.packager import models

RECIPE = Recipe("r", "int8", weight_type="uint8", activation_type="uint8")
WIDE = 5  # the channel that is a hundred times as wide as the others


@pytest.fixture
def net(tmp_path):
    """A LayerNorm with one loud channel, read by two products and a residual addition; then a Gemm."""
    gamma = np.ones(16, np.float32)
    gamma[WIDE] = 100
    nodes = [
        helper.make_node("LayerNormalization", ["x", "gamma"], ["n"], name="norm"),
        helper.make_node("MatMul", ["n", "wq"], ["q"], name="query"),
        helper.make_node("MatMul", ["n", "wk"], ["k"], name="key"),
        helper.make_node("Mul", ["q", "k"], ["qk"], name="both"),
        helper.make_node("Tanh", ["qk"], ["t"], name="act"),
        helper.make_node("Add", ["t", "n"], ["sum"], name="residual"),
        helper.make_node("Gemm", ["sum", "wo"], ["y"], name="last", transB=1),
    ]
    loud = np.ones((16, 1), np.float32)
    loud[WIDE] = 0.01
    constants = [
        ("gamma", gamma),
        ("wq", models.weights(16, 16, seed=1) * loud),
        ("wk", models.weights(16, 16, seed=2) * loud),
        ("wo", models.weights(8, 16, seed=3) * loud.T),
    ]
    path = models.save(
        tmp_path / "net.onnx", nodes, [models.tensor("x", [1, 16])], [models.tensor("y", [1, 8])], constants
    )
    model = onnx.load(path)
    model.opset_import[0].version = 17
    onnx.save(model, path)
    return path


def feeds(path, count=40):
    arrays = np.random.default_rng(0).standard_normal((count, 16)).astype(np.float32)
    return CalibrationData("npz", {"x": arrays}, model_inputs(load_model(path)))


def outputs(path, arrays):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options)
    return np.concatenate([session.run(["y"], {"x": one[None]})[0] for one in arrays])


def test_smoothed_graph_is_the_same_function_with_narrower_activations(net, tmp_path):
    data = feeds(net)
    model = load_model(net)
    assert smooth(model, data, RECIPE) == 3
    onnx.save(model, tmp_path / "smoothed.onnx")
    arrays = data.arrays["x"]
    np.testing.assert_allclose(outputs(tmp_path / "smoothed.onnx", arrays), outputs(net, arrays), rtol=1e-4, atol=1e-5)
    inner = {node.name: node.input[0] for node in model.graph.node}
    assert inner["query"] == inner["key"] == "n_smoothed"
    assert "n" in next(node for node in model.graph.node if node.name == "residual").input


@pytest.mark.parametrize("weight_type", ["int8", "uint8"])
def test_smoothing_takes_noise_away_that_int8_adds(net, tmp_path, weight_type):
    data = feeds(net)
    wanted = outputs(net, data.arrays["x"])
    noise = {}
    for on in (False, True):
        recipe = Recipe("r", "int8", weight_type=weight_type, activation_type="uint8", smooth=on)
        place = tmp_path / f"{on}.onnx"
        found = quantize_static(net, place, data, recipe, lambda _: None)
        assert [one.code for one in found if one.code == "smoothed"] == ["smoothed"] * on
        names = [one.name for one in onnx.load(place).graph.initializer]
        assert len(names) == len(set(names))
        noise[on] = float(((outputs(place, data.arrays["x"]) - wanted) ** 2).mean())
    assert noise[True] < noise[False] / 4


def test_weights_that_others_read_stay_as_they_were(net):
    model = load_model(net)
    shared = helper.make_node("Gemm", ["x", "wo"], ["other"], name="shared", transB=1)
    model.graph.node.append(shared)
    before = {one.name: one.raw_data for one in model.graph.initializer}
    smooth(model, feeds(net), RECIPE)
    assert next(one.raw_data for one in model.graph.initializer if one.name == "wo") == before["wo"]


def test_even_channels_are_left_alone(net):
    model = load_model(net)
    gamma = next(one for one in model.graph.initializer if one.name == "gamma")
    gamma.CopyFrom(onnx.numpy_helper.from_array(np.ones(16, np.float32), "gamma"))
    before = model.SerializeToString(deterministic=True)
    assert smooth(model, feeds(net), RECIPE) == 0
    assert model.SerializeToString(deterministic=True) == before


def test_products_that_give_floats_are_not_rounded_before_what_computes_in_float(net, tmp_path):
    data = feeds(net)
    rounded = {}
    for on in (False, True):
        place = tmp_path / f"{on}.onnx"
        recipe = dataclasses.replace(RECIPE, float_products=on)
        quantize_static(net, place, data, recipe, lambda _: None)
        graph = onnx.load(place).graph
        readers = {name: node.op_type for node in graph.node for name in node.input}
        rounded[on] = [readers[node.output[0]] for node in graph.node if node.name in ("query", "key")]
        integers = {node.name: [readers[name] for name in node.input] for node in graph.node if node.name == "query"}
        assert integers == {"query": ["MatMul", "MatMul"]}
    assert rounded == {False: ["QuantizeLinear", "QuantizeLinear"], True: ["Mul", "Mul"]}
