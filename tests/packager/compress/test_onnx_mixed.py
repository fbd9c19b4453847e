"""Layers taken back to float in a Q/DQ graph: weights, activations, and who reads what."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from agent.contract.errors import UsageError
from packager.calibration import load_calibration
from packager.compress.onnx_layers import int8_layers
from packager.compress.quantize.clipping import best_clip, entropy_clip, percentile_clip
from packager.compress.quantize.onnx_static import quantize_static
from packager.onnx_model import load_model, model_inputs
from packager.recipe import Recipe
from tests.packager import models


def residual(path):
    """Convolutions with ReLU6, and an addition whose sum the next block and the next addition read."""
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c1"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["c1", "zero", "six"], ["r1"], name="clip1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], name="second"),
        helper.make_node("Add", ["c2", "r1"], ["sum1"], name="add1"),
        helper.make_node("Conv", ["sum1", "w3", "b2"], ["c3"], name="third"),
        helper.make_node("Add", ["c3", "sum1"], ["sum2"], name="add2"),
        helper.make_node("GlobalAveragePool", ["sum2"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten", axis=1),
        helper.make_node("Gemm", ["f", "w4", "b4"], ["scores"], name="last", transB=1),
    ]
    constants = [
        ("w1", models.weights(8, 1, 3, 3, seed=1, scale=2.0)),
        ("b1", models.weights(8, seed=2)),
        ("w2", models.weights(8, 8, 1, 1, seed=3)),
        ("b2", models.weights(8, seed=4)),
        ("w3", models.weights(8, 8, 1, 1, seed=5)),
        ("w4", models.weights(10, 8, seed=6, scale=1.0)),
        ("b4", models.weights(10, seed=7)),
        ("zero", np.array(0, np.float32)),
        ("six", np.array(6, np.float32)),
    ]
    inputs, outputs = [models.tensor("image", [1, 1, 8, 8])], [models.tensor("scores", [1, 10])]
    return models.save(path, nodes, inputs, outputs, constants)


@pytest.fixture
def net(tmp_path):
    model = residual(tmp_path / "net.onnx")
    images = np.random.default_rng(0).standard_normal((20, 1, 8, 8)).astype(np.float32) * 3
    np.savez(tmp_path / "cal.npz", image=images)
    return model, load_calibration(str(tmp_path / "cal.npz"), model_inputs(load_model(model))), images


def quantised(net, *, cache=None, **changes):
    model, calibration, _ = net
    recipe = Recipe("mine", "int8", weight_type="uint8", activation_type="uint8", **changes)
    result = model.with_name("q.onnx")
    quantize_static(model, result, calibration, recipe, lambda _: None, cache=cache)
    onnx.checker.check_model(str(result), full_check=True)
    return load_model(result)


def outputs(model, images):
    session = onnxruntime.InferenceSession(
        model if isinstance(model, bytes) else model.SerializeToString(),
        providers=["CPUExecutionProvider"],
        disabled_optimizers=["WeightBiasQuantization"],
    )
    return np.concatenate([session.run(None, {"image": one[None]})[0] for one in images])


def makers(model):
    return {name: node for node in model.graph.node for name in node.output}


def test_activation_is_taken_into_the_range_of_the_layer_before(net):
    model = quantised(net)
    assert "Clip" not in {node.op_type for node in model.graph.node}
    assert int8_layers(model) == {"first", "second", "third", "last"}


def test_sum_is_read_in_float_by_the_next_addition_and_rounded_for_the_next_layer(net):
    model = quantised(net)
    made_by = makers(model)
    by_name = {node.name: node for node in model.graph.node}
    assert {made_by[name].op_type for name in by_name["add2"].input} == {"DequantizeLinear", "Add"}
    assert made_by[by_name["third"].input[0]].op_type == "DequantizeLinear"


def test_layer_in_float_gets_its_weights_and_its_activation_back(net):
    model = quantised(net, exclude=("first",))
    by_name = {node.name: node for node in model.graph.node}
    assert int8_layers(model) == {"second", "third", "last"}
    assert by_name["clip1"].input[0] == by_name["first"].output[0]
    assert by_name["first"].input[0] == "image"


def test_everything_in_float_is_the_float_model(net):
    path, _, images = net
    model = quantised(net, exclude=("first", "second", "third", "last"))
    assert not {"QuantizeLinear", "DequantizeLinear"} & {node.op_type for node in model.graph.node}
    assert np.allclose(outputs(model, images), outputs(path.read_bytes(), images), atol=1e-5)


def test_fewer_layers_in_int8_leave_less_noise(net):
    path, _, images = net
    wanted = outputs(path.read_bytes(), images)
    noise = [
        float(((outputs(quantised(net, exclude=names), images) - wanted) ** 2).mean())
        for names in ((), ("first", "second"), ("first", "second", "third"))
    ]
    assert noise[0] > noise[1] > noise[2] > 0


def test_cached_graph_gives_the_same_bytes(net, tmp_path):
    fresh = quantised(net, exclude=("second",), bias_correction=True).SerializeToString(deterministic=True)
    (tmp_path / "cache").mkdir()
    for _ in range(2):
        kept = quantised(net, exclude=("second",), bias_correction=True, cache=tmp_path / "cache")
        assert kept.SerializeToString(deterministic=True) == fresh


def test_bias_correction_takes_the_shift_of_small_padded_maps_out(net):
    """Rounded per tensor to few steps, the weights shift their channels' means; corrected ones must not."""
    path, _, images = net
    wanted = outputs(path.read_bytes(), images)
    plain = outputs(quantised(net, per_channel=False), images)
    corrected = outputs(quantised(net, per_channel=False, bias_correction=True), images)
    assert abs((corrected - wanted).mean(axis=0)).mean() < abs((plain - wanted).mean(axis=0)).mean()


def test_node_that_does_not_exist(net):
    with pytest.raises(UsageError, match="did you mean 'second'"):
        quantised(net, exclude=("secnd",))


def test_percentile_cuts_both_tails():
    hist = np.ones(1000)
    assert percentile_clip(hist, -1.0, 1.0, 90.0) == pytest.approx((-0.9, 0.9), abs=0.005)
    assert percentile_clip(hist, 0.0, 2.0, 90.0) == pytest.approx((0.0, 1.8), abs=0.005)


@pytest.mark.parametrize("clip", [best_clip, entropy_clip])
def test_ranges_leave_a_lone_outlier_outside(clip):
    hist = np.zeros(2048)
    hist[:600] = np.exp(-np.linspace(0, 6, 600)) * 1e6
    hist[-1] = 1
    low, high = clip(hist, 0.0, 1.0, symmetric=False)
    assert low == 0
    assert 0.2 < high < 0.6


def test_bias_that_only_corrected_rounding_goes_with_it(tmp_path):
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["c1"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], name="act"),
        helper.make_node("Conv", ["r1", "w2"], ["scores"], name="last"),
    ]
    constants = [("w1", models.weights(8, 1, 3, 3, seed=1)), ("w2", models.weights(8, 8, 1, 1, seed=3))]
    outputs = [models.tensor("scores", [1, 8, 8, 8])]
    model = models.save(tmp_path / "net.onnx", nodes, [models.tensor("image", [1, 1, 8, 8])], outputs, constants)
    images = np.random.default_rng(0).standard_normal((20, 1, 8, 8)).astype(np.float32) + 1
    np.savez(tmp_path / "cal.npz", image=images)
    calibration = load_calibration(str(tmp_path / "cal.npz"), model_inputs(load_model(model)))
    recipe = Recipe(
        "mine", "int8", weight_type="uint8", activation_type="uint8", bias_correction=True, exclude=("first",)
    )
    quantize_static(model, tmp_path / "q.onnx", calibration, recipe, lambda _: None)
    by_name = {node.name: node for node in load_model(tmp_path / "q.onnx").graph.node}
    assert list(by_name["first"].input) == ["image", "w1"]
    assert len(by_name["last"].input) == 3
