"""NonMaxSuppression stays outside the engine; both halves together are the model."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from agent.contract import archive
from agent.contract.errors import ConvertError
from packager.pipeline import build
from packager.tensorrt import preflight
from packager.tensorrt.split import AFTER, split


def detector(before=True):
    """Boxes and scores out of x [1, 6, 8], the best of them, and the boxes that they are; also the plain scores."""
    rng = np.random.default_rng(0)
    weights = {
        "wb": rng.normal(size=(8, 4)).astype("float32"),
        "ws": rng.normal(size=(8, 2)).astype("float32"),
        "most": np.asarray([2], dtype="int64"),
        "overlap": np.asarray([0.5], dtype="float32"),
        "column": np.asarray([2], dtype="int64"),
    }
    first = [
        helper.make_node("MatMul", ["x", "wb"], ["boxes"], "regress"),
        helper.make_node("MatMul", ["x", "ws"], ["classes"], "classify"),
        helper.make_node("Transpose", ["classes"], ["scores"], "turn", perm=[0, 2, 1]),
    ]
    last = [
        helper.make_node("NonMaxSuppression", ["boxes", "scores", "most", "overlap"], ["kept"], "suppress"),
        helper.make_node("Gather", ["kept", "column"], ["places"], "pick", axis=1),
    ]
    outputs = [
        helper.make_tensor_value_info("places", TensorProto.INT64, [None, 1]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 2, 6]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 6, 8])]
    if not before:
        inputs = [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, 6, 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 2, 6]),
        ]
        first, outputs = [], outputs[:1]
    kept = [onnx.numpy_helper.from_array(value, name) for name, value in weights.items() if before or name[0] != "w"]
    graph = helper.make_graph([*first, *last], "g", inputs, outputs, kept)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def names(values):
    return [value.name for value in values]


def run(model, feed):
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = names(model.graph.output)
    return dict(zip(wanted, session.run(wanted, feed), strict=True))


def test_both_halves_together_are_the_model():
    model = detector()
    parts = split(model)
    assert parts.crossing == ("boxes", "scores")
    assert names(parts.head.graph.output) == ["boxes", "scores"]
    assert names(parts.tail.graph.input) == ["boxes", "scores"]
    assert "NonMaxSuppression" not in [node.op_type for node in parts.head.graph.node]
    for one in (parts.head, parts.tail):
        onnx.checker.check_model(one, full_check=True)
    x = {"x": np.random.default_rng(1).normal(size=(1, 6, 8)).astype("float32")}
    first = run(parts.head, x)
    assert np.array_equal(run(parts.tail, first)["places"], run(model, x)["places"])
    assert np.array_equal(first["scores"], run(model, x)["scores"])


def test_a_model_without_suppression_is_left_alone():
    model = detector()
    del model.graph.node[3:]
    assert split(model) is None


def test_a_model_that_is_nothing_but_suppression_is_refused():
    with pytest.raises(ConvertError, match="nothing of the model is left") as caught:
        split(detector(before=False))
    assert caught.value.code == "nothing-before-nms"
    assert "onnxruntime" in caught.value.fix


def test_the_bundle_has_the_engine_s_half_and_the_rest_beside_it(tmp_path):
    onnx.save(detector(), str(tmp_path / "detector.onnx"))
    output = tmp_path / "m.edgepack"
    built = build(str(tmp_path / "detector.onnx"), "jetson-orin", runtime="tensorrt", recipe="fp32", output=output)
    codes = {finding.code: finding.message for finding in built.manifest.findings}
    assert "suppress" in codes["nms-outside"]
    assert "host-parity" not in codes
    assert names(built.manifest.outputs) == ["boxes", "scores"]
    assert "split" in [step.name for step in built.manifest.steps]
    if preflight.available():
        assert codes["tensorrt-preflight"].startswith("ok")
    with archive.BundleReader(output) as reader:
        tail = onnx.load_from_string(reader.read(AFTER))
        entry = next(one for one in reader.manifest.golden.outputs if one.name == "boxes")
        assert reader.read(entry.file)
    assert names(tail.graph.output) == ["places"]
