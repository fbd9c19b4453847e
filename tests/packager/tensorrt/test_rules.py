import numpy as np
import pytest
from onnx import TensorProto, helper

from packager.shapes import Range
from packager.tensorrt import operators, rules, versions
from tests.packager.tensorrt.graphs import model, quantized

ORIN, XAVIER = (10, 3), (8, 5)


def told(one, version=ORIN, ranges=None):
    return rules.check(one, version, ranges or {})


def node(kind, inputs=("x",), **attributes):
    return helper.make_node(kind, list(inputs), ["y"], "it", **attributes)


def test_a_plain_network_breaks_no_rule():
    assert told(model([node("Relu")])) == []


@pytest.mark.parametrize(
    "name", ["Unique", "Det", "QLinearConv", "ConvInteger", "SequenceAt", "StringNormalizer", "DFT"]
)
def test_what_no_tensorrt_takes_is_rejected_by_name(name):
    (one,) = told(model([node(name)]))
    assert (one.verdict, one.node, one.operator) == (rules.REJECTED, "it", name)
    assert one.fix


@pytest.mark.parametrize(
    ("name", "opset", "first"),
    [
        ("LayerNormalization", 17, "8.6"),
        ("HannWindow", 17, "10.4"),
        ("STFT", 17, "10.5"),
        ("Attention", 23, "10.14"),
        ("RMSNormalization", 23, "10.15"),
        ("RotaryEmbedding", 23, "10.15"),
        ("TensorScatter", 24, "10.15"),
        ("Swish", 24, "11.0"),
    ],
)
def test_what_the_stand_in_takes_and_an_older_tensorrt_does_not_is_blocked(name, opset, first):
    numbers = tuple(map(int, first.split(".")))
    before = (numbers[0], numbers[1] - 1) if numbers[1] else (10, 16)
    one = told(model([node(name)], opset=opset), before)[0]
    assert one.verdict == rules.REJECTED
    assert first in one.reason
    assert told(model([node(name)], opset=opset), numbers) == []


def test_operators_of_runtimes_are_rejected_and_plugins_are_for_the_device_to_tell():
    (fused,) = told(
        model([helper.make_node("FusedConv", ["x"], ["y"], "f", domain="com.microsoft")], domains=["com.microsoft"])
    )
    assert fused.verdict == rules.REJECTED
    (plugin,) = told(model([node("EfficientNMS_TRT")]))
    assert plugin.verdict == rules.UNVERIFIED


@pytest.mark.parametrize(
    ("built", "words"),
    [
        (quantized(point=3), "asymmetric"),
        (quantized(point=128, kind="uint8"), "uint8"),
        (quantized(bias=[1, 2, 3, 4]), "quantised bias"),
        (model([helper.make_node("MaxPool", ["x"], ["y", "i"], "it", kernel_shape=[2, 2])]), "indices"),
        (model([node("AveragePool", kernel_shape=[2, 2], dilations=[2, 2])], opset=19), "dilated"),
        (model([node("Resize", ["x", "", "s"], antialias=1)], [("s", np.ones(4, "float32"))], opset=18), "antialias"),
        (model([node("TopK", ["x", "k"])], [("k", np.asarray([5000]))]), "3840"),
        (model([node("Dropout", ["x", "r", "t"])], [("r", np.float32(0.5)), ("t", np.asarray(True))]), "training"),
        (model([node("LSTM", ["x", "w", "r"], layout=1)]), "layout"),
        (model([node("ReduceMax", ["x", "axes"])], opset=18), "axes"),
    ],
)
def test_forms_that_the_parser_refuses_are_named(built, words):
    found = rules.rejected(told(built))
    assert any(words in one.reason for one in found), found
    assert all(one.fix for one in found)


def test_a_free_dimension_needs_a_profile():
    dynamic = model([node("Relu")], shape=("batch", 3, 8, 8))
    (one,) = told(dynamic)
    assert "batch" in one.reason
    assert "--shape x=1x3x8x8" in one.fix
    least, most = (1, 3, 8, 8), (8, 3, 8, 8)
    assert told(dynamic, ranges={"x": Range(least, least, most)}) == []


def test_text_is_no_type():
    one = told(model([node("Identity")], dtype=TensorProto.STRING, out=TensorProto.STRING))[0]
    assert (one.verdict, one.node) == (rules.REJECTED, "x")


def test_subgraphs_are_looked_into():
    branch = helper.make_graph(
        [helper.make_node("Det", ["x"], ["b"], "inside")], "b", [], [helper.make_tensor_value_info("b", 1, None)]
    )
    condition = ("c", np.asarray(True))
    one = told(
        model([helper.make_node("If", ["c"], ["y"], "if", then_branch=branch, else_branch=branch)], [condition])
    )[0]
    assert one.node == "inside"


def test_ceilings_and_what_comes_after():
    assert versions.limits("8.5.2").opset == 17
    assert versions.limits("10.3.0") == versions.Limits((10, 3), 20, 10, strong=True)
    assert not versions.limits("8.6.2").strong
    assert (versions.below("8.6.2"), versions.below("10.3.0")) == ("10", "11")
    with pytest.raises(versions.ConvertError, match="older"):
        versions.limits("8.4.1")


def test_the_stand_in_s_gaps_are_operators_that_tensorrt_takes():
    assert all(operators.takes(name, (10, 3)) for name in operators.PROXY_LACKS)
