"""ONNX to TFLite by onnx2tf itself, where its environment is there (edgepack toolchain install onnx2tf)."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from packager import toolchain
from packager.pipeline import build
from packager.tflite_model import operator_counts, read_model
from tests.tflite_models import needs_tflite

pytestmark = [
    *needs_tflite,
    pytest.mark.device,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not toolchain.folder_of("onnx2tf").exists(), reason="edgepack toolchain install onnx2tf was not run"
    ),
]


def net(path):
    """conv, batch normalisation, a mean, then a shape that is computed from constants, as PaddlePaddle exports it."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(array, name)
        for name, array in {
            "w": rng.normal(0, 0.4, (8, 3, 3, 3)).astype("float32"),
            "scale": np.ones(8, "float32"),
            "shift": np.zeros(8, "float32"),
            "average": np.zeros(8, "float32"),
            "spread": np.ones(8, "float32"),
            "zero": np.array([0], "int64"),
            "one": np.array([1], "int64"),
            "rest": np.array([-1], "int64"),
            "dense": rng.normal(0, 0.3, (8, 5)).astype("float32"),
        }.items()
    ]
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"], pads=[1, 1, 1, 1], name="c"),
        helper.make_node("BatchNormalization", ["c", "scale", "shift", "average", "spread"], ["b"], name="b"),
        helper.make_node("Relu", ["b"], ["r"], name="r"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], name="p"),
        helper.make_node("Shape", ["p"], ["s"], name="s"),
        helper.make_node("Slice", ["s", "zero", "one"], ["n"], name="n"),
        helper.make_node("Concat", ["n", "rest"], ["to"], axis=0, name="to"),
        helper.make_node("Reshape", ["p", "to"], ["flat"], name="flat"),
        helper.make_node("MatMul", ["flat", "dense"], ["scores"], name="scores"),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1, name="probabilities"),
    ]
    sides = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("image", ["n", 3, 8, 8]), ("probabilities", ["n", 5]))
    ]
    graph = helper.make_graph(nodes, "g", sides[:1], sides[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return str(path)


def test_shapes_computed_from_constants_and_batch_normalisation_are_folded(tmp_path):
    from agent.contract.archive import BundleReader

    built = build(
        net(tmp_path / "net.onnx"), "linux-x86-64", runtime="tflite", recipe="fp32", output=tmp_path / "net.edgepack"
    )
    assert [spec.shape for spec in built.manifest.inputs] == [[1, 8, 8, 3]]
    with BundleReader(built.bundle) as reader:
        (tmp_path / "net.tflite").write_bytes(reader.read(built.manifest.model))
    counts = operator_counts(read_model(tmp_path / "net.tflite"))
    assert counts["CONV_2D"] == 1
    assert counts["TRANSPOSE"] == 0
    assert counts["MUL"] == 0


def convolution(path, size):
    """3 x size x size to 4 x (size - 2) x (size - 2)."""
    weights = np.random.default_rng(0).normal(0, 1, (4, 3, 3, 3)).astype("float32")
    sides = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", [1, 3, size, size]), ("y", [1, 4, size - 2, size - 2]))
    ]
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="c")]
    graph = helper.make_graph(nodes, "g", sides[:1], sides[1:], [numpy_helper.from_array(weights, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return str(path)


@pytest.mark.parametrize("size", [6, 16])
@pytest.mark.parametrize("layout", ["", "nchw"])
def test_map_as_output_is_right_in_either_layout(tmp_path, size, layout):
    """The build compares with the original; 6 gives a map of 4 x 4 x 4, whose shape does not tell the order of its axes."""
    built = build(
        convolution(tmp_path / "net.onnx", size),
        "linux-x86-64",
        runtime="tflite",
        recipe="fp32",
        layout=layout,
        output=tmp_path / "net.edgepack",
    )
    (spec,) = built.manifest.outputs
    assert spec.layout == ("" if layout else "nhwc")
    assert spec.shape == ([1, 4, size - 2, size - 2] if layout else [1, size - 2, size - 2, 4])


def detector(path):
    """Two maps of 6 channels, flattened, joined, and turned to boxes x 6 at the end, as detectors are exported."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.normal(0, 1, (6, 3, side, side)).astype("float32"), name)
        for name, side in (("w", 3), ("v", 5))
    ]
    weights.append(numpy_helper.from_array(np.array([1, 6, -1], "int64"), "to"))
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["fine"], name="fine"),
        helper.make_node("Conv", ["x", "v"], ["coarse"], name="coarse"),
        helper.make_node("Reshape", ["fine", "to"], ["flat"], name="flat"),
        helper.make_node("Reshape", ["coarse", "to"], ["small"], name="small"),
        helper.make_node("Concat", ["flat", "small"], ["all"], axis=2, name="all"),
        helper.make_node("Transpose", ["all"], ["boxes"], perm=[0, 2, 1], name="boxes"),
    ]
    sides = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", [1, 3, 12, 12]), ("boxes", [1, 164, 6]))
    ]
    graph = helper.make_graph(nodes, "g", sides[:1], sides[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return str(path)


def test_boxes_of_a_detector_have_the_axes_of_the_original(tmp_path):
    """The build compares with the original."""
    built = build(
        detector(tmp_path / "net.onnx"),
        "linux-x86-64",
        runtime="tflite",
        recipe="fp32",
        output=tmp_path / "net.edgepack",
    )
    assert [spec.shape for spec in built.manifest.outputs] == [[1, 164, 6]]


def recurrent(path, direction="bidirectional"):
    """An LSTM of 4 steps."""
    rng = np.random.default_rng(0)
    ways = 2 if direction == "bidirectional" else 1
    weights = [
        numpy_helper.from_array(rng.normal(0, 0.5, shape).astype("float32"), name)
        for name, shape in (("w", (ways, 12, 4)), ("r", (ways, 12, 3)), ("b", (ways, 24)))
    ]
    nodes = [helper.make_node("LSTM", ["x", "w", "r", "b"], ["y"], direction=direction, hidden_size=3, name="net")]
    sides = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", [4, 1, 4]), ("y", [4, ways, 1, 3]))
    ]
    graph = helper.make_graph(nodes, "g", sides[:1], sides[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return str(path)


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_lstm_begins_anew_in_every_inference(tmp_path, direction):
    """The build compares several samples with the original, one after the other in one interpreter."""
    built = build(
        recurrent(tmp_path / "net.onnx", direction),
        "linux-x86-64",
        runtime="tflite",
        recipe="fp32",
        output=tmp_path / "net.edgepack",
    )
    assert "recurrence-unrolled" in [one.code for one in built.manifest.findings]
    assert built.manifest.golden.samples > 1


def test_a_conversion_that_lies_is_told_before_anything_is_quantised(tmp_path, monkeypatch):
    from agent.contract.errors import ConvertError
    from packager.convert import tflite_from_onnx

    monkeypatch.setattr(tflite_from_onnx, "unroll", lambda model: (model, 0))
    np.savez(tmp_path / "cal.npz", x=np.random.default_rng(0).standard_normal((8, 4, 1, 4)).astype("float32"))
    options = {"runtime": "tflite", "recipe": "int8", "calibration": str(tmp_path / "cal.npz")}
    with pytest.raises(ConvertError) as error:
        build(recurrent(tmp_path / "net.onnx"), "linux-x86-64", output=tmp_path / "net.edgepack", **options)
    assert error.value.code == "parity"
    assert "before anything is quantised" in error.value.what
    assert not list(tmp_path.glob("*.edgepack"))
