"""Sources that need nothing beyond the base install; what is said where PyTorch is not there."""

import sys

import numpy as np
import pytest

from agent.contract.errors import UsageError
from packager import pipeline, registry
from tests.packager import models


def test_onnx_is_its_own_reference(classifier):
    source = registry.source("onnx")
    artifact = source.open(str(classifier), {})
    assert (artifact.opset, artifact.quantized, artifact.companions) == (17, False, ())
    batches = [{"image": models.images(1, seed=seed)} for seed in (1, 2)]
    for batch, found in zip(batches, source.run(artifact, batches), strict=True):
        np.testing.assert_array_equal(found["scores"], models.run_onnx(classifier, batch)["scores"])


@pytest.mark.parametrize(
    ("model", "code"),
    [("no.onnx", "no-model"), ("no.such", "no-model"), ("notes.txt", "unknown-format"), ("folder", "unknown-format")],
)
def test_what_no_source_reads_is_told(place, model, code):
    (place / "notes.txt").write_text("no model")
    (place / "folder").mkdir()
    with pytest.raises(UsageError) as caught:
        pipeline.build(model, "linux-x86-64", recipe="fp32")
    assert caught.value.code == code


@pytest.mark.parametrize("model", ["net.py:make", "net.pt2", "net.pt"])
def test_without_torch_the_extra_is_named(place, monkeypatch, model):
    for name in ("net.py", "net.pt2", "net.pt"):
        (place / name).write_text("def make(): ...\n")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UsageError) as caught:
        pipeline.build(model, "linux-x86-64", recipe="fp32")
    assert caught.value.code == "no-torch"
    assert "edgepack[torch]" in caught.value.fix


def test_digest_covers_the_external_data(place):
    import onnx

    model = onnx.load(str(models.classifier(place / "plain.onnx")))
    onnx.save(model, str(place / "big.onnx"), save_as_external_data=True, location="big.bin", size_threshold=0)
    source = registry.source("onnx")
    before = source.open(str(place / "big.onnx"), {})
    assert [path.name for path in before.companions] == ["big.bin"]
    raw = bytearray((place / "big.bin").read_bytes())
    raw[0] ^= 1
    (place / "big.bin").write_bytes(raw)
    assert source.open(str(place / "big.onnx"), {}).digest != before.digest


def test_table_of_tokens_bounds_random_inputs(place, packed):
    from onnx import TensorProto, helper

    nodes = [helper.make_node("Gather", ["table", "ids"], ["y"])]
    inputs, outputs = [models.tensor("ids", [1, 5], TensorProto.INT64)], [models.tensor("y", [1, 5, 4])]
    model = models.save(place / "m.onnx", nodes, inputs, outputs, [("table", models.weights(30, 4))])
    ids = packed(model, recipe="fp32").golden("inputs")["ids"]
    assert 2 < ids.max() < 30
