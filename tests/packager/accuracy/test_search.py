"""The search's own choices: which network it leaves layers of in float, and that it ends in its time."""

import numpy as np
import pytest
from onnx import helper

from agent.contract.archive import BundleReader
from packager.accuracy import search
from packager.accuracy.search import Memory
from packager.pipeline import build
from tests.packager import models
from tests.packager.accuracy import nets


def made(place, **options):
    given = {
        "recipe": "int8",
        "calibration": str(place / "cal.npz"),
        "eval": str(place / "eval.npz"),
        "allow_drop": True,
    }
    built = build(str(place / "net.onnx"), "linux-x86-64", output=place / "b.edgepack", **{**given, **options})
    with BundleReader(built.bundle) as reader:
        return reader.manifest


def clipped(path):
    """`nets.uneven`, whose ReLU6 cuts most of what passes: taken for a ReLU it is another network."""
    scale = np.geomspace(1, 300, 8).astype(np.float32)
    w1, w2 = models.weights(8, 1, 3, 3, seed=1), models.weights(8, 8, 1, 1, seed=3)
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c1"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["c1", "zero", "six"], ["r1"], name="act"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], name="second"),
        helper.make_node("Relu", ["c2"], ["r2"], name="act2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten", axis=1),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["scores"], name="last", transB=1),
    ]
    constants = [
        ("w1", w1 * scale[:, None, None, None]),
        ("b1", models.weights(8, seed=2) * scale),
        ("w2", w2),
        ("b2", models.weights(8, seed=4, scale=0.05)),
        ("w3", models.weights(10, 8, seed=5, scale=1.0)),
        ("b3", models.weights(10, seed=6, scale=0.02)),
        ("zero", np.array(0, np.float32)),
        ("six", np.array(6, np.float32)),
    ]
    inputs, outputs = [models.tensor("image", [1, 1, 8, 8])], [models.tensor("scores", [1, 10])]
    return models.save(path, nodes, inputs, outputs, constants)


def unlabelled(place):
    """No INT8 gives the very numbers of the original: with mse and no budget the search goes to its end."""
    with np.load(place / "eval.npz") as data:
        np.savez(place / "eval.npz", image=data["image"])


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_layers_are_left_in_float_of_the_network_that_was_not_equalised_too(place, monkeypatch):
    nets.sets(place, clipped(place / "net.onnx"), samples=100)
    seen = []
    rungs = search.Search._rungs

    def watched(self, root, order, end):
        found = rungs(self, root, order, end)
        seen.append((root.equalize, len(found)))
        return found

    monkeypatch.setattr(search.Search, "_rungs", watched)
    # A cure that does harm, kept: as if it had lowered the noise of a few samples by chance.
    monkeypatch.setattr(search, "_PAYS", 1e9)
    unlabelled(place)
    manifest = made(place, metric="mse", max_drop=0.0)
    assert {equalised for equalised, count in seen if count} == {True, False}
    assert "in float" in " ".join(step["step"] for step in manifest.facts["search"])


def test_search_cut_off_keeps_the_best_that_it_has(place):
    nets.sets(place, nets.uneven(place / "net.onnx", act="LeakyRelu"), samples=100)
    manifest = made(place, search_minutes=1e-6)
    assert len([step for step in manifest.facts["search"] if "score" in step]) == 1
    assert {"over-budget"} <= {finding.code for finding in manifest.findings}
    assert manifest.facts["int8_share"]["macs"] == 1


def test_layers_that_there_was_no_time_for_stay_in_int8(place, monkeypatch):
    nets.sets(place, nets.uneven(place / "net.onnx", act="LeakyRelu"), samples=100)
    monkeypatch.setattr(search, "_RANKING", 0.0)
    said = []
    manifest = made(place, progress=said.append)
    assert not any("sensitivity" in line for line in said)
    assert not manifest.recipe["exclude"]


def test_evaluations_stay_within_three_bisections(place):
    nets.sets(place, nets.uneven(place / "net.onnx", act="LeakyRelu"), samples=100)
    unlabelled(place)
    steps = made(place, metric="mse", max_drop=0.0).facts["search"]
    assert len([step for step in steps if "score" in step]) <= search.MOST_FACTOR * 3


def test_memory_cut_off_in_the_writing_is_measured_again(tmp_path):
    path = tmp_path / "search.json"
    Memory(path).keep("probe", [0.5])
    assert Memory(path).get("probe") == [0.5]
    path.write_text('{"probe": [0.')
    assert Memory(path).get("probe") is None
