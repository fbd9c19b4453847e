"""Weights rounded as the quantiser itself rounds them, and the shift that this gives taken from the biases."""

import numpy as np
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from packager.calibration import load_calibration
from packager.compress.quantize.onnx_correction import correct_biases, rounded
from packager.compress.quantize.onnx_static import quantize_static
from packager.onnx_model import load_model, model_inputs
from packager.recipe import Recipe
from tests.packager import models

SKEWED = 0.3  # added to all weights: a range that is no more symmetric


@pytest.fixture
def net(tmp_path):
    """A convolution, a depthwise one, and a Gemm, whose weights lie to one side of 0."""
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c1"], name="plain", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["c1", "w2", "b2"], ["c2"], name="deep", pads=[1, 1, 1, 1], group=8),
        helper.make_node("GlobalAveragePool", ["c2"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten", axis=1),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["scores"], name="product", transB=1),
    ]
    constants = [
        ("w1", models.weights(8, 1, 3, 3, seed=1) + np.float32(SKEWED)),
        ("w2", models.weights(8, 1, 3, 3, seed=2) + np.float32(SKEWED)),
        ("w3", models.weights(10, 8, seed=3) + np.float32(SKEWED)),
        ("b1", models.weights(8, seed=4)),
        ("b2", models.weights(8, seed=6)),
        ("b3", models.weights(10, seed=5)),
    ]
    inputs, outputs = [models.tensor("image", [1, 1, 8, 8])], [models.tensor("scores", [1, 10])]
    path = models.save(tmp_path / "net.onnx", nodes, inputs, outputs, constants)
    images = np.random.default_rng(0).uniform(0, 1, (32, 1, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "cal.npz", image=images)
    return path, load_calibration(str(tmp_path / "cal.npz"), model_inputs(load_model(path)))


def constants_of(model):
    return {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}


def weights_in(model):
    """Of each layer in a Q/DQ graph, the real values of its integers."""
    made, held = {name: node for node in model.graph.node for name in node.output}, constants_of(model)
    found = {}
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            back = made[node.input[1]]
            integers, scale, zero = (held[name].astype(np.float32) for name in back.input)
            axis = next((one.i for one in back.attribute if one.name == "axis"), 0)
            shape = [-1 if place == axis else 1 for place in range(integers.ndim)] if scale.ndim else []
            found[node.name] = (integers - zero.reshape(shape)) * scale.reshape(shape)
    return found


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("weight_type", ["int8", "uint8"])
def test_weights_are_rounded_as_the_quantiser_does_it(net, weight_type, per_channel):
    path, calibration = net
    recipe = Recipe("mine", "int8", per_channel=per_channel, weight_type=weight_type, activation_type="uint8")
    result = path.with_name("q.onnx")
    quantize_static(path, result, calibration, recipe, lambda _: None)
    before, after = constants_of(load_model(path)), weights_in(load_model(result))
    assert set(after) == {"plain", "deep", "product"}
    for name, weight in (("plain", "w1"), ("deep", "w2"), ("product", "w3")):
        # The axis of the output channels is the first of all three.
        expected = rounded(before[weight], recipe, axis=0)
        assert np.abs(expected - before[weight]).max() > 0
        np.testing.assert_allclose(after[name], expected, atol=1e-6)


def test_mean_that_rounded_weights_shift_comes_back(net):
    path, calibration = net
    recipe = Recipe("mine", "int8", weight_type="uint8", activation_type="uint8")
    model = load_model(path)
    assert correct_biases(model, calibration, recipe) == 3
    for name in (
        "w1",
        "w2",
        "w3",
    ):  # the float graph with coarse weights and corrected biases, its activations in float
        tensor = next(one for one in model.graph.initializer if one.name == name)
        tensor.CopyFrom(numpy_helper.from_array(rounded(numpy_helper.to_array(tensor), recipe, axis=0), name))

    def mean(made):
        session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
        return np.concatenate([session.run(None, feed)[0] for feed in calibration.feeds()]).mean(axis=0)

    coarse = load_model(path)
    for tensor in coarse.graph.initializer:
        if tensor.name.startswith("w"):
            tensor.CopyFrom(
                numpy_helper.from_array(rounded(numpy_helper.to_array(tensor), recipe, axis=0), tensor.name)
            )
    truth = mean(load_model(path))
    assert np.abs(mean(model) - truth).max() < 0.2 * np.abs(mean(coarse) - truth).max()
