"""Token ids, which are no real numbers: they stay integers, whatever --io says of floats."""

import numpy as np
import pytest

from agent.contract.archive import BundleReader
from packager.pipeline import build
from packager.tflite_model import operator_name, parse_model, type_name
from tests.tflite_models import Graph, dense, fb, needs_tflite, reshape

pytestmark = needs_tflite


@pytest.fixture
def model(tmp_path):
    """Two ids of 32 words -> an embedding of 4 each -> a dense layer: the input `ids`."""
    g = Graph()
    ids = g.tensor("ids", [1, 2], dtype="int32")
    table = g.tensor("table", [32, 4], np.random.default_rng(0).normal(0, 1, (32, 4)))
    options = fb.GatherOptionsT()
    options.axis = 0
    words = g.op("GATHER", [table, ids], [g.tensor("words", [1, 2, 4])], options, "GatherOptions")
    scores = dense(g, reshape(g, words, "flat", [1, 8]), "scores", 8, 3)
    (tmp_path / "words.tflite").write_bytes(g.raw([ids], [scores]))
    np.savez(tmp_path / "cal.npz", ids=np.random.default_rng(1).integers(0, 32, (16, 2)).astype("int32"))
    return tmp_path / "words.tflite"


@pytest.mark.parametrize("io", ["int8", "float"])
def test_io_int8_for_token_ids(model, tmp_path, io):
    built = build(
        str(model),
        "linux-x86-64",
        runtime="tflite",
        recipe="int8",
        io=io,
        calibration=str(tmp_path / "cal.npz"),
        output=tmp_path / "words.edgepack",
    )
    (ids,) = built.manifest.inputs
    (scores,) = built.manifest.outputs
    assert ids.dtype == "int32"
    assert scores.dtype == ("int8" if io == "int8" else "float32")
    assert built.manifest.facts["quantized"]
    assert "ids" not in built.manifest.facts["quantization"]
    told = [one.message for one in built.manifest.findings if one.code == "integer-inputs"]
    assert told == (
        ["whole numbers, such as token ids, are taken as they are, not as INT8: ids (int32)"] if io == "int8" else []
    )


def types(bundle, kind):
    """The types of what the one operator of this kind takes and gives."""
    with BundleReader(bundle) as reader:
        model = parse_model(reader.read(reader.manifest.model))
    graph = model.subgraphs[0]
    (op,) = (one for one in graph.operators if operator_name(model, one) == kind)
    return [type_name(graph.tensors[index]) for index in (*op.inputs, *op.outputs)]


@pytest.mark.parametrize("scope", ["compute", "all"])
def test_what_follows_the_embedding_is_quantised(model, tmp_path, scope):
    recipe = tmp_path / "own.toml"
    recipe.write_text(f'precision = "int8"\nscope = "{scope}"\n')
    built = build(
        str(model),
        "linux-x86-64",
        runtime="tflite",
        recipe=str(recipe),
        calibration=str(tmp_path / "cal.npz"),
        output=tmp_path / "words.edgepack",
    )
    assert types(built.bundle, "FULLY_CONNECTED") == ["INT8", "INT8", "INT32", "INT8"]
    words = "FLOAT32" if scope == "compute" else "INT8"
    assert types(built.bundle, "GATHER") == [words, "INT32", words]
