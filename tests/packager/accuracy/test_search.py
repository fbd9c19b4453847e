"""The search's own choices: which network it leaves layers of in float, and that it ends in its time."""

import numpy as np
import pytest

from agent.contract.archive import BundleReader
from packager.accuracy import search
from packager.accuracy.trials import Memory
from packager.pipeline import build
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


def unlabelled(place):
    """No INT8 gives the very numbers of the original: with cosine and no budget the search goes to its end."""
    with np.load(place / "eval.npz") as data:
        np.savez(place / "eval.npz", image=data["image"])


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_layers_are_left_in_float_of_the_network_that_was_not_equalised_too(place, monkeypatch):
    nets.sets(place, nets.uneven(place / "net.onnx", spread=300.0, cut=(0, 6)), samples=100)
    seen = []
    foresee = search.foreseen

    def watched(root, told, order):
        seen.append(root.recipe.equalize)
        return foresee(root, told, order)

    monkeypatch.setattr(search, "foreseen", watched)
    # A cure that does harm, kept: as if it had lowered the noise, and the loss, of a few samples by chance.
    monkeypatch.setattr(search, "_PAYS", 1e9)
    monkeypatch.setattr(search, "_worse", lambda *_: False)
    unlabelled(place)
    manifest = made(place, metric="cosine", max_drop=0.0)
    assert set(seen) == {True, False}
    assert "in float" in " ".join(step["step"] for step in manifest.facts["search"])


def test_a_cure_that_loses_more_is_not_kept(place, monkeypatch):
    nets.sets(place, nets.uneven(place / "net.onnx", spread=300.0, cut=(0, 6)), samples=100)
    monkeypatch.setattr(search, "_PAYS", 1e9)
    monkeypatch.setattr("targets.onnxruntime.levers", lambda _: [("cross-layer equalisation", {"equalize": True})])
    unlabelled(place)
    said = []
    steps = made(place, metric="cosine", max_drop=0.0, progress=said.append).facts["search"]
    harmful = [step for step in steps if step.get("loses_more")]
    assert harmful
    assert not any(step["kept"] for step in harmful)
    assert any("but more lost: not kept" in line for line in said)


def test_the_first_cure_that_suffices_ends_the_search(place, monkeypatch):
    nets.sets(place, nets.uneven(place / "net.onnx"))
    rows = [("cross-layer equalisation", {"equalize": True}), ("bias correction", {"bias_correction": True})]
    monkeypatch.setattr("targets.onnxruntime.levers", lambda _: rows)
    steps = made(place, test=str(place / "test.npz")).facts["search"]
    assert steps[-1]["step"].endswith("cross-layer equalisation")
    assert "bias correction" not in {step["step"] for step in steps}


def test_cures_that_none_is_kept_of_are_tried_together(place, monkeypatch):
    nets.sets(place, nets.uneven(place / "net.onnx"))
    rows = [("cross-layer equalisation", {"equalize": True}), ("smoothed activations", {"smooth": True})]
    monkeypatch.setattr("targets.onnxruntime.levers", lambda _: rows)
    monkeypatch.setattr(search, "_PAYS", 0.0)
    manifest = made(place, test=str(place / "test.npz"))
    steps = manifest.facts["search"]
    assert [step["kept"] for step in steps if "kept" in step] == [False, False]
    assert steps[-1]["step"] == "all cures at once"
    assert manifest.recipe["equalize"]
    assert manifest.recipe["smooth"]


def test_search_cut_off_keeps_the_best_that_it_has(place):
    nets.sets(place, nets.uneven(place / "net.onnx", act="Elu"), samples=100)
    manifest = made(place, search_minutes=1e-6)
    assert len([step for step in manifest.facts["search"] if "score" in step]) == 1
    assert {"over-budget"} <= {finding.code for finding in manifest.findings}
    assert manifest.facts["int8_share"]["macs"] == 1


def test_layers_that_there_was_no_time_for_stay_in_int8(place, monkeypatch):
    nets.sets(place, nets.uneven(place / "net.onnx", act="Elu"), samples=100)
    monkeypatch.setattr(search, "_RANKING", 0.0)
    monkeypatch.setattr("targets.onnxruntime.levers", lambda _: [])
    said = []
    manifest = made(place, progress=said.append)
    assert not any("sensitivity" in line for line in said)
    assert not manifest.recipe["exclude"]
    assert {"over-budget"} <= {finding.code for finding in manifest.findings}


def test_evaluations_stay_within_three_bisections(place):
    nets.sets(place, nets.uneven(place / "net.onnx", act="Elu"), samples=100)
    unlabelled(place)
    steps = made(place, metric="cosine", max_drop=0.0).facts["search"]
    assert len([step for step in steps if "score" in step]) <= search.MOST_FACTOR * 3


def test_memory_cut_off_in_the_writing_is_measured_again(tmp_path):
    path = tmp_path / "search.json"
    Memory(path).keep("probe", [0.5])
    assert Memory(path).get("probe") == [0.5]
    path.write_text('{"probe": [0.')
    assert Memory(path).get("probe") is None
