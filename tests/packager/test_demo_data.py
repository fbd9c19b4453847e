"""The files that ship for the demo are what their README says."""

import re

import pytest

from packager import demo_data

np = pytest.importorskip("numpy")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

_MEAN, _STD = 0.286, 0.353


@pytest.fixture(scope="module")
def evaluation():
    with np.load(demo_data.eval_path(), allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="module")
def calibration():
    with np.load(demo_data.calibration_path(), allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="module")
def proto():
    return onnx.load(demo_data.model_path())


def test_model_scores_what_the_readme_says(evaluation):
    readme = demo_data.model_path().with_name("README.md").read_text(encoding="utf-8")
    said = re.search(r"\| the 1,000 of `eval.npz` \| ([0-9.]+) % \|", readme)
    session = onnxruntime.InferenceSession(demo_data.model_path(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": evaluation["image"]})
    score = float((logits.argmax(1) == evaluation["labels"]).mean())
    assert said is not None
    assert abs(100 * score - float(said.group(1))) <= 0.5
    assert score >= 0.9


def test_evaluation_data_has_the_keys_shapes_and_types_that_build_takes(evaluation):
    assert {key: (value.dtype.name, value.shape) for key, value in evaluation.items()} == {
        "image": ("float32", (1000, 1, 28, 28)),
        "labels": ("int64", (1000,)),
    }
    assert np.bincount(evaluation["labels"]).tolist() == [100] * len(demo_data.labels())


def test_calibration_data_holds_the_input_alone(calibration):
    assert {key: (value.dtype.name, value.shape) for key, value in calibration.items()} == {
        "image": ("float32", (200, 1, 28, 28))
    }


def test_calibration_and_evaluation_share_no_image(calibration, evaluation):
    calibrating = {image.tobytes() for image in calibration["image"]}
    assert calibrating.isdisjoint(image.tobytes() for image in evaluation["image"])


@pytest.mark.parametrize("name", ["calibration", "evaluation"])
def test_images_are_pixels_normalised_as_the_readme_says(name, request):
    pixels = (request.getfixturevalue(name)["image"] * _STD + _MEAN) * 255
    assert np.abs(pixels - pixels.round()).max() < 0.001
    assert (pixels.round().min(), pixels.round().max()) == (0, 255)


def test_model_takes_any_batch_and_gives_ten_logits(proto):
    session = onnxruntime.InferenceSession(demo_data.model_path(), providers=["CPUExecutionProvider"])
    given, result = session.get_inputs(), session.get_outputs()
    assert [(io.name, io.type, io.shape) for io in given] == [("image", "tensor(float)", ["batch", 1, 28, 28])]
    assert [(io.name, io.type, io.shape) for io in result] == [("logits", "tensor(float)", ["batch", 10])]
    for batch in (1, 3):
        (logits,) = session.run(None, {"image": np.zeros((batch, 1, 28, 28), np.float32)})
        assert logits.shape == (batch, len(demo_data.labels()))


def test_model_is_clean_opset_17_with_batch_norm_folded(proto):
    onnx.checker.check_model(proto, full_check=True)
    assert [(opset.domain, opset.version) for opset in proto.opset_import] == [("", 17)]
    assert "BatchNormalization" not in {node.op_type for node in proto.graph.node}


def test_model_tells_nothing_of_the_machine_it_was_made_on(proto):
    parts = (proto, proto.graph, *proto.graph.node, *proto.graph.initializer, *proto.graph.input, *proto.graph.output)
    assert [part.doc_string for part in parts if part.doc_string] == []
    assert [list(part.metadata_props) for part in parts if len(part.metadata_props)] == []
    assert b".py" not in proto.SerializeToString()


def test_files_are_small_enough_to_ship():
    assert 100_000 < demo_data.model_path().stat().st_size < 450_000
    assert demo_data.eval_path().stat().st_size < 1_000_000
    assert demo_data.calibration_path().stat().st_size < 200_000


def test_the_licence_of_the_images_ships_with_them():
    licence = demo_data.model_path().with_name("LICENSE-fashion-mnist").read_text(encoding="utf-8")
    assert "Copyright 2017 Zalando SE" in licence
    assert "Permission is hereby granted, free of charge" in licence
