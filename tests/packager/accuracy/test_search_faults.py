"""A lever with nothing to act on, a candidate that breaks: the search says so at its place and goes on."""

import numpy as np
import pytest
from onnx import helper

from agent.contract.archive import BundleReader
from agent.contract.errors import ConvertError, UsageError
from packager.accuracy.trials import failure
from packager.compress.quantize import onnx_correction, onnx_static
from packager.pipeline import build
from tests.packager import models
from tests.packager.accuracy import nets

IDLE = {"cross-layer equalisation", "bias correction"}


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def products(path):
    """Two MatMuls with a GELU's erf between: no convolution, no bias of a layer, no ReLU."""
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"], name="flatten"),
        helper.make_node("MatMul", ["flat", "w1"], ["m1"], name="first"),
        helper.make_node("Erf", ["m1"], ["e1"], name="act"),
        helper.make_node("MatMul", ["e1", "w2"], ["scores"], name="last"),
    ]
    wide = np.geomspace(1, 300, 12).astype(np.float32)
    constants = [("w1", models.weights(64, 12, seed=1) * wide), ("w2", models.weights(12, 10, seed=2, scale=1.0))]
    return models.save(
        path, nodes, [models.tensor("image", [1, 1, 8, 8])], [models.tensor("scores", [1, 10])], constants
    )


def searched(place, runtime="onnxruntime", target="linux-x86-64", said=None):
    """No INT8 gives the very numbers of the original: with cosine and no budget the search goes to its end."""
    with np.load(place / "eval.npz") as data:
        np.savez(place / "eval.npz", image=data["image"])
    built = build(
        str(place / "net.onnx"),
        target,
        runtime=runtime,
        recipe="int8",
        calibration=str(place / "cal.npz"),
        eval=str(place / "eval.npz"),
        metric="cosine",
        max_drop=0.0,
        allow_drop=True,
        output=place / "b.edgepack",
        progress=(lambda _: None) if said is None else said.append,
    )
    with BundleReader(built.bundle) as reader:
        return reader.manifest


def cures(manifest):
    return {step["step"]: step for step in manifest.facts["search"] if "kept" in step}


@pytest.mark.parametrize(
    ("runtime", "target"),
    [("onnxruntime", "linux-x86-64"), ("tensorrt", "jetson-orin-nano")],
)
def test_a_net_of_matrix_products_gives_the_levers_nothing_to_do(place, runtime, target):
    nets.sets(place, products(place / "net.onnx"), samples=40)
    said = []
    found = cures(searched(place, runtime, target, said))
    assert set(found) >= IDLE
    for words in IDLE:
        assert found[words]["nothing_to_do"]
        assert not found[words]["kept"]
        assert f"{words}: changes nothing in this model" in said


def test_a_lever_that_fails_as_none_should_is_told_and_the_search_goes_on(place, monkeypatch):
    nets.sets(place, nets.uneven(place / "net.onnx", act="Elu"), samples=60)

    def broken(*_):
        raise RuntimeError("no such axis")

    monkeypatch.setattr(onnx_static, "correct_biases", broken)
    manifest = searched(place)
    assert cures(manifest)["bias correction"]["failed"] == "RuntimeError: no such axis"
    assert any("in float" in step["step"] for step in manifest.facts["search"])
    told = [finding for finding in manifest.findings if finding.code == "candidate-failed"]
    # Smoothed activations come with corrected biases, and so fail likewise.
    words = ["bias correction", "smoothed activations"]
    assert [
        f"{one}: RuntimeError: no such axis" in finding.message for one, finding in zip(words, told, strict=True)
    ] == [True] * 2
    # Mended, the search that goes on from here takes the lever again.
    monkeypatch.setattr(onnx_static, "correct_biases", onnx_correction.correct_biases)
    assert "sqnr_db" in cures(searched(place))["bias correction"]


def test_a_lever_that_the_quantiser_refuses_is_a_row_and_no_fault(place, monkeypatch):
    nets.sets(place, nets.uneven(place / "net.onnx", act="Elu"), samples=60)

    def refused(*_):
        raise ConvertError("the biases cannot be corrected", code="quantiser-failed")

    monkeypatch.setattr(onnx_static, "correct_biases", refused)
    manifest = searched(place)
    assert cures(manifest)["bias correction"]["failed"] == "the biases cannot be corrected"
    assert not [finding for finding in manifest.findings if finding.code == "candidate-failed"]


@pytest.mark.parametrize("error", [OSError("no space left on device"), MemoryError("no memory")])
def test_a_full_disk_ends_the_search(place, monkeypatch, error):
    nets.sets(place, nets.uneven(place / "net.onnx", act="Elu"), samples=60)

    def full(*_):
        raise error

    monkeypatch.setattr(onnx_static, "correct_biases", full)
    with pytest.raises(type(error)):
        searched(place)


def test_failures_in_a_line():
    assert failure(UsageError("a long\n  story")) == "a long story"
    assert failure(KeyError("axis")) == "KeyError: 'axis'"
    assert len(failure(ValueError("x" * 900))) == 200
