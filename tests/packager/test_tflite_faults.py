"""Broken and unsuitable TFLite inputs, each named by its fault."""

import numpy as np
import pytest

from agent.contract.archive import BundleReader
from agent.contract.errors import ConvertError, UsageError
from packager.overview import overview
from packager.pipeline import build
from packager.sources.tflite import Tflite
from tests.tflite_models import Graph, classifier, dense, needs_tflite, samples

pytestmark = needs_tflite


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "net.tflite"
    path.write_bytes(classifier())
    return path


@pytest.fixture
def calibration(tmp_path):
    np.savez(tmp_path / "cal.npz", image=samples())
    return str(tmp_path / "cal.npz")


def test_not_a_tflite_file(tmp_path):
    path = tmp_path / "text.tflite"
    path.write_text("this is no model at all")
    with pytest.raises(ConvertError) as error:
        Tflite().open(str(path), {})
    assert error.value.code == "not-tflite"


@pytest.mark.parametrize("keep", [16, 200, 1000])
def test_truncated_flatbuffer(model, keep):
    model.write_bytes(model.read_bytes()[:keep])
    with pytest.raises(ConvertError) as error:
        Tflite().open(str(model), {})
    assert error.value.code == "corrupt-tflite"
    assert error.value.exit_code == 3


def test_an_operator_of_another_library_is_named(tmp_path):
    g = Graph()
    image = g.tensor("image", [1, 8])
    g.op("CUSTOM", [image], [g.tensor("out", [1, 8])])
    g.model.operatorCodes[-1].customCode = b"Convolution2DTransposeBias"
    path = tmp_path / "net.tflite"
    path.write_bytes(g.raw([image], [1]))
    with pytest.raises(ConvertError) as error:
        build(str(path), "linux-x86-64", runtime="tflite", recipe="fp32")
    assert error.value.code == "unsupported-operator"
    assert error.value.what.startswith("Convolution2DTransposeBias ")
    assert error.value.fix


def test_no_such_file(tmp_path):
    with pytest.raises(UsageError) as error:
        Tflite().open(str(tmp_path / "none.tflite"), {})
    assert error.value.code == "no-model"


def test_free_dimensions_are_refused(model):
    with pytest.raises(UsageError):
        build(str(model), "linux-x86-64", runtime="tflite", recipe="fp32", shapes=("image=batchx8x8x3",))


def test_int8_without_calibration(model):
    with pytest.raises(UsageError) as error:
        build(str(model), "linux-x86-64", runtime="tflite", recipe="int8")
    assert error.value.code == "no-calibration"


def test_representative_set_that_does_not_match(model, tmp_path):
    np.savez(tmp_path / "wrong.npz", image=samples(size=9))
    with pytest.raises(UsageError) as error:
        build(str(model), "linux-x86-64", runtime="tflite", recipe="int8", calibration=str(tmp_path / "wrong.npz"))
    assert error.value.code == "wrong-shape"


@pytest.fixture
def quantised(model, calibration, tmp_path):
    """The bundle in INT8, and its .tflite as a source."""
    made = build(
        str(model),
        "linux-x86-64",
        runtime="tflite",
        recipe="int8",
        calibration=calibration,
        output=tmp_path / "a.edgepack",
    )
    with BundleReader(made.bundle) as reader:
        (tmp_path / "quantised.tflite").write_bytes(reader.read(made.manifest.model))
    return made, str(tmp_path / "quantised.tflite")


def test_quantised_source_is_passed_through_and_not_made_anything_else(quantised, calibration, tmp_path):
    first, source = quantised
    second = build(source, "linux-x86-64", runtime="tflite", recipe="int8", output=tmp_path / "b.edgepack")
    assert "already-quantised" in [finding.code for finding in second.manifest.findings]
    assert second.manifest.files[second.manifest.model].sha256 == first.manifest.files[first.manifest.model].sha256
    for recipe in ("fp16", "int8-dynamic", "int16x8"):
        more = {"calibration": "random"} if recipe == "int16x8" else {}
        with pytest.raises(ConvertError) as error:
            build(source, "linux-x86-64", runtime="tflite", recipe=recipe, output=tmp_path / "c.edgepack", **more)
        assert error.value.code == "already-quantised"
    with pytest.raises(UsageError) as wrong:
        build(source, "linux-x86-64", runtime="tflite", recipe="int8", calibration=calibration)
    assert wrong.value.code == "wrong-dtype"
    assert "zero point" in wrong.value.fix


def test_inspect_tells_the_scale_of_quantised_inputs(quantised, model):
    built, source = quantised
    assert overview(str(model), {}).quantization == {}
    told = overview(source, {}).quantization
    assert told == built.manifest.facts["quantization"]
    assert told["image"]["scale"] > 0


def test_model_too_large_for_the_microcontroller_says_by_how_much(tmp_path):
    (tmp_path / "big.tflite").write_bytes(classifier(size=160))
    np.savez(tmp_path / "cal.npz", image=samples(2, 160))
    with pytest.raises(ConvertError) as error:
        build(
            str(tmp_path / "big.tflite"),
            "cortex-m4",
            calibration=str(tmp_path / "cal.npz"),
            output=tmp_path / "x.edgepack",
        )
    assert error.value.code == "does-not-fit"
    assert "more than there are" in error.value.what
    assert "cortex-m55" in error.value.fix
    assert not (tmp_path / "x.edgepack").exists()


def test_operator_without_an_integer_form_is_named(tmp_path):
    g = Graph()
    image = g.tensor("image", [1, 6])
    hidden = dense(g, image, "hidden", 6, 4)
    odd = g.op("ELU", [hidden], [g.tensor("odd", [1, 4])])
    (tmp_path / "odd.tflite").write_bytes(g.raw([image], [odd]))
    np.savez(tmp_path / "cal.npz", image=np.random.default_rng(0).standard_normal((16, 6)).astype("float32"))
    with pytest.raises(ConvertError) as error:
        build(
            str(tmp_path / "odd.tflite"),
            "cortex-m4",
            calibration=str(tmp_path / "cal.npz"),
            output=tmp_path / "x.edgepack",
        )
    assert error.value.code == "float-operators"
    assert "ELU" in error.value.what
    assert "odd" in error.value.where


def test_unknown_node_in_exclude(model, calibration, tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text('precision = "int8"\nexclude = ["secnd"]\n')
    with pytest.raises(UsageError) as error:
        build(str(model), "linux-x86-64", runtime="tflite", recipe=str(recipe), calibration=calibration)
    assert "second" in str(error.value)
