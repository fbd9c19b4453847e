"""ONNX quantisation: what becomes INT8, what stays, and what is said about it."""

import numpy as np
import onnx
import pytest
from onnx import helper

from agent.contract.errors import ConvertError
from packager.recipe import load_recipe
from tests.packager import models


def quantized_inputs(model):
    """The nodes whose first input comes out of DequantizeLinear."""
    made = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    return {node.op_type for node in model.graph.node if node.input and node.input[0] in made}


@pytest.mark.parametrize("recipe", ["int8", "int8-entropy", "int8-percentile", "int8-per-tensor"])
def test_static_methods(packed, classifier, npz, recipe):
    made = packed(classifier, "raspberry-pi-5", recipe=recipe, calibration=str(npz))
    assert {"Conv", "Gemm"} <= quantized_inputs(made.model)
    options = made.manifest["steps"][-1]["options"]
    assert options["method"] == load_recipe(recipe).method
    assert options["per_channel"] is (recipe != "int8-per-tensor")
    scales = next(one for one in made.model.graph.initializer if one.name == "w1_scale")
    assert list(scales.dims) == ([] if recipe == "int8-per-tensor" else [8])


@pytest.mark.parametrize("samples", [1, 16, 32, 33])
def test_histograms_work_for_any_number_of_samples(packed, classifier, place, samples):
    data = models.samples(place / "s.npz", samples)
    made = packed(classifier, "raspberry-pi-5", recipe="int8-percentile", calibration=str(data))
    assert made.manifest["calibration"]["samples"] == samples


def test_scope_all_quantises_more_than_scope_compute(packed, place, npz):
    sigmoid = helper.make_node("Sigmoid", ["scores0"], ["scores"], name="sigmoid")
    model = onnx.load(str(models.classifier(place / "m.onnx")))
    model.graph.node[-1].output[0] = "scores0"
    model.graph.node.append(sigmoid)
    onnx.save(model, str(place / "m.onnx"))
    found = {}
    for scope in ("compute", "all"):
        (place / f"{scope}.toml").write_text(f'precision = "int8"\nscope = "{scope}"\n')
        made = packed(place / "m.onnx", recipe=f"{scope}.toml", calibration=str(npz))
        found[scope] = next(node.op_type for node in made.model.graph.node if "scores" in node.output)
    assert found == {"compute": "Sigmoid", "all": "DequantizeLinear"}


def test_dynamic_takes_matrix_products_and_leaves_convolutions(packed, classifier):
    made = packed(classifier, recipe="int8-dynamic")
    assert made.operators().count("Conv") == 2
    assert {"DynamicQuantizeLinear", "MatMulInteger"} <= set(made.operators())
    assert "float-convolutions" in made.codes()
    assert made.manifest["calibration"] is None


@pytest.mark.parametrize("recipe", ["int8", "int8-dynamic"])
def test_weights_in_constant_nodes_are_quantised(packed, place, recipe):
    model = onnx.load(str(models.linear(place / "m.onnx", size=16)))
    weight = model.graph.initializer.pop()
    model.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=weight))
    onnx.save(model, str(place / "m.onnx"))
    data = models.samples(place / "s.npz", x=models.weights(20, 16))
    made = packed(place / "m.onnx", recipe=recipe, calibration=str(data))
    assert "Constant" not in made.operators()
    assert any(one.name == "w_quantized" for one in made.model.graph.initializer)


def test_weights_among_the_inputs_of_an_old_model_are_quantised(packed, place):
    model = onnx.load(str(models.linear(place / "m.onnx", size=16, ir=3, opset=8)))
    model.graph.input.append(models.tensor("w", [16, 3]))
    onnx.save(model, str(place / "m.onnx"))
    made = packed(place / "m.onnx", recipe="int8-dynamic")
    assert [one["name"] for one in made.manifest["inputs"]] == ["x"]
    assert "MatMulInteger" in made.operators()


def test_bias_that_two_nodes_share_is_quantised(packed, place):
    # The quantiser calls its copy of the second bias "b2": a name that is taken here.
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b"], ["c1"], name="conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["c1", "w2", "b"], ["b2"], name="conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Neg", ["b2"], ["n"], name="neg"),
        helper.make_node("Concat", ["c1", "n"], ["y"], name="concat", axis=1),
    ]
    constants = [("w1", models.weights(4, 1, 3, 3)), ("w2", models.weights(4, 4, 3, 3)), ("b", models.weights(4))]
    ends = [models.tensor("image", [1, 1, 8, 8])], [models.tensor("y", [1, 8, 8, 8])]
    model = models.save(place / "m.onnx", nodes, *ends, constants)
    made = packed(model, recipe="int8", calibration=str(models.samples(place / "s.npz")))
    assert quantized_inputs(made.model) >= {"Conv"}
    assert "left-in-float" not in made.codes()


def test_bias_with_two_dimensions_is_quantised(packed, place):
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="gemm")]
    constants = [("w", models.weights(4, 3)), ("b", models.weights(1, 3))]
    ends = [models.tensor("x", [1, 4])], [models.tensor("y", [1, 3])]
    model = models.save(place / "m.onnx", nodes, *ends, constants)
    data = models.samples(place / "s.npz", x=models.weights(20, 4))
    made = packed(model, recipe="int8", calibration=str(data))
    assert "Gemm" in quantized_inputs(made.model)
    assert "left-in-float" not in made.codes()


def breaking(monkeypatch, what):
    """The quantiser fails as long as the node is to be quantised."""
    from onnxruntime import quantization

    real = quantization.quantize_static

    def quantize(*arguments, nodes_to_exclude=(), **options):
        if what not in nodes_to_exclude:
            raise AssertionError(f"cannot quantise '{what}'")
        real(*arguments, nodes_to_exclude=nodes_to_exclude, **options)

    monkeypatch.setattr(quantization, "quantize_static", quantize)


def test_node_on_which_the_quantiser_breaks_stays_in_float_and_is_told(packed, classifier, npz, monkeypatch):
    breaking(monkeypatch, "conv2")
    made = packed(classifier, "raspberry-pi-5", recipe="int8", calibration=str(npz))
    (finding,) = [one for one in made.manifest["findings"] if one["code"] == "left-in-float"]
    assert "conv2" in finding["message"]
    names = {one.name for one in made.model.graph.initializer}
    assert {"w1_quantized", "w2"} <= names


def test_quantiser_that_breaks_on_what_cannot_be_left_out_is_told(packed, classifier, npz, monkeypatch):
    breaking(monkeypatch, "everything")
    with pytest.raises(ConvertError, match="cannot quantise 'everything'") as caught:
        packed(classifier, "raspberry-pi-5", recipe="int8", calibration=str(npz))
    assert caught.value.code == "quantiser-failed"


def test_dynamic_weights_are_those_of_the_device(packed, place):
    model = models.linear(place / "m.onnx", size=16)
    for target, kind in (("linux-x86-64", "uint8"), ("raspberry-pi-5", "int8")):
        made = packed(model, target, recipe="int8-dynamic")
        stored = {one.name: one.data_type for one in made.model.graph.initializer}
        assert helper.tensor_dtype_to_np_dtype(stored["w_quantized"]) == np.dtype(kind)


@pytest.mark.parametrize("recipe", ["int8-dynamic", "int8"])
def test_nothing_to_quantise_is_an_error_not_a_float_model(packed, place, recipe):
    node = helper.make_node("Sin", ["x"], ["y"])
    model = models.save(place / "m.onnx", [node], [models.tensor("x", [1, 4])], [models.tensor("y", [1, 4])])
    data = models.samples(place / "s.npz", x=models.weights(20, 4))
    with pytest.raises(ConvertError) as caught:
        packed(model, recipe=recipe, calibration=str(data))
    assert caught.value.code == "nothing-to-quantise"


def test_instructions_that_the_numbers_were_made_for_are_demanded(packed, classifier, npz):
    need = {}
    for target in ("raspberry-pi-5", "linux-x86-64-vnni", "raspberry-pi-4"):
        made = packed(classifier, target, recipe="int8", calibration=str(npz))
        need[target] = made.manifest["runtime"]["cpu_features"]
    assert need == {"raspberry-pi-5": ["dotprod"], "linux-x86-64-vnni": ["vnni"], "raspberry-pi-4": []}
    assert packed(classifier, "raspberry-pi-5", recipe="fp32").manifest["runtime"]["cpu_features"] == []


def test_int8_that_is_far_off_says_so(packed, place):
    # One weight of a thousand, the others of one: per tensor, nothing is left of the small ones.
    weight = models.weights(16, 3)
    weight[:, 0] *= 1e4
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"], name="matmul"), helper.make_node("Mul", ["m", "k"], ["y"])]
    constants = [("w", weight), ("k", np.float32([1e-4, 1e4, 1e4]))]
    model = models.save(place / "m.onnx", nodes, [models.tensor("x", [1, 16])], [models.tensor("y", [1, 3])], constants)
    data = models.samples(place / "s.npz", x=models.weights(20, 16))
    bad = packed(model, recipe="int8-per-tensor", calibration=str(data))
    assert "host-parity" in bad.codes()
    assert bad.manifest["golden"]["tolerance"]["min_cosine"] == 0.98
    lost = packed(model, recipe="int8-per-tensor", calibration=str(data), allow_drop=True)
    assert lost.manifest["golden"]["tolerance"]["min_cosine"] == 0.98  # two outputs of three are nothing but zero


def test_int8_whose_loss_was_accepted_can_be_activated(packed, place):
    weight = models.weights(16, 3)
    weight[:, 0] *= 40
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"], name="matmul"), helper.make_node("Mul", ["m", "k"], ["y"])]
    constants = [("w", weight), ("k", np.float32([1 / 40, 1, 1]))]
    model = models.save(place / "m.onnx", nodes, [models.tensor("x", [1, 16])], [models.tensor("y", [1, 3])], constants)
    data = models.samples(place / "s.npz", x=models.weights(20, 16))
    found = {
        accepted: packed(model, recipe="int8-per-tensor", calibration=str(data), allow_drop=accepted)
        for accepted in (False, True)
    }
    assert all("host-parity" in one.codes() for one in found.values())
    assert found[False].manifest["golden"]["tolerance"]["min_cosine"] == 0.98
    assert found[True].manifest["golden"]["tolerance"]["min_cosine"] < 0.98
