"""A repair changes nothing of what is computed, and says what it did."""

import numpy as np
import onnx
import pytest
from onnx import helper

from packager.tensorrt import repair, rules
from tests.packager.tensorrt.graphs import model, quantized, run

ORIN, XAVIER = (10, 3), (8, 5)
X = np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype("float32")


def copy(one):
    return onnx.ModelProto.FromString(one.SerializeToString())


@pytest.mark.parametrize(
    ("built", "version", "words"),
    [
        (quantized(point=128, kind="uint8"), ORIN, "uint8 around 128"),
        (quantized(bias=[100, -200, 300, 4]), ORIN, "quantised biases"),
        (model([helper.make_node("Mish", ["x"], ["y"], "m")], opset=18), ORIN, "decomposed as ONNX defines it: Mish"),
        (model([helper.make_node("Gelu", ["x"], ["y"], "m")], opset=20), ORIN, "Gelu"),
        (
            model(
                [helper.make_node("LayerNormalization", ["x", "s"], ["y"], "m", axis=-1)],
                [("s", np.ones(8, "float32"))],
            ),
            XAVIER,
            "LayerNormalization",
        ),
        (
            model(
                [helper.make_node("Slice", ["x", "a", "b", "c"], ["y"], "cut")],
                [("a", np.asarray([1])), ("b", np.asarray([2**63 - 1])), ("c", np.asarray([3]))],
            ),
            XAVIER,
            "within int32",
        ),
    ],
)
def test_a_repair_is_exact_and_said_and_passes_the_rules(built, version, words):
    fixed, told = repair.repair(copy(built), version)
    assert any(words in line for line in told), told
    assert rules.rejected(rules.check(fixed, version, {})) == []
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(fixed))
    np.testing.assert_allclose(run(fixed, X), run(built, X), rtol=1e-5, atol=1e-6)


def test_what_needs_no_repair_is_left_alone():
    built = quantized()
    fixed, told = repair.repair(copy(built), ORIN)
    assert told == []
    assert fixed == built


def test_an_asymmetric_zero_point_is_not_repaired():
    fixed, told = repair.repair(copy(quantized(point=3)), ORIN)
    assert told == []
    assert rules.rejected(rules.check(fixed, ORIN, {}))


def test_folding_removes_what_depends_on_no_input(tmp_path):
    nodes = [
        helper.make_node("Det", ["m"], ["d"], "det"),
        helper.make_node("Mul", ["x", "d"], ["y"], "mul"),
    ]
    built = model(nodes, [("m", np.eye(3, dtype="float32") * 2)])
    folded = repair.fold(copy(built), tmp_path / "folded.onnx")
    assert [node.op_type for node in folded.graph.node] == ["Mul"]
    np.testing.assert_array_equal(run(folded, X), run(built, X))
