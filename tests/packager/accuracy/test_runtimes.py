"""The same gate for other runtimes: TFLite, TensorRT's Q/DQ graph; a layer that is left out is counted as float."""

import numpy as np
import pytest

from packager.accuracy.dataset import load_eval
from packager.accuracy.evaluate import evaluate, run_source
from packager.pipeline import build, find_source
from tests.packager.accuracy import nets
from tests.tflite_models import classifier, needs_tflite, samples


@pytest.fixture
def tflite(tmp_path):
    """net.tflite with its own answers as labels; the worst it can lose is counted against them."""
    (tmp_path / "net.tflite").write_bytes(classifier())
    images = samples(80)
    np.savez(tmp_path / "cal.npz", image=images[:16])
    source = find_source(str(tmp_path / "net.tflite"))
    artifact = source.open(str(tmp_path / "net.tflite"), {})
    np.savez(tmp_path / "eval.npz", image=images)
    outputs = run_source(artifact, load_eval(tmp_path / "eval.npz", artifact.inputs))
    (values,) = outputs.values()
    np.savez(tmp_path / "eval.npz", image=images, labels=values.reshape(80, -1).argmax(1))
    return tmp_path


def made(place, model, target, **options):
    given = {"recipe": "int8", "calibration": str(place / "cal.npz"), "eval": str(place / "eval.npz")}
    return build(str(place / model), target, output=place / "b.edgepack", **{**given, **options})


@pytest.mark.tflite
@pytest.mark.skipif(needs_tflite[1].args[0], reason="the tflite extra is not installed")
def test_tflite_int8_is_scored_through_its_int8_inputs(tflite):
    built = made(tflite, "net.tflite", "android-arm64", runtime="tflite", allow_drop=True)
    told = built.manifest.facts["accuracy"]
    assert told["original"] == 1.0
    assert built.manifest.facts["int8_share"]["macs"] > 0
    score, _ = evaluate(built.bundle, tflite / "eval.npz")
    assert (score.score, score.n) == (told["bundle"], 80)
    # As a model with channels first has them: the bundle takes them last.
    with np.load(tflite / "eval.npz") as data:
        np.savez(tflite / "first.npz", image=np.moveaxis(data["image"], -1, 1), labels=data["labels"])
    assert evaluate(built.bundle, tflite / "first.npz")[0].score == score.score


@pytest.mark.tflite
@pytest.mark.skipif(needs_tflite[1].args[0], reason="the tflite extra is not installed")
def test_microcontroller_bundle_is_scored_in_tflite_micro(tflite):
    pytest.importorskip("tflite_micro", reason="the tflite extra is not installed")
    built = made(tflite, "net.tflite", "cortex-m4", allow_drop=True)
    told = built.manifest.facts["accuracy"]
    score, _ = evaluate(built.bundle, tflite / "eval.npz")
    assert (score.score, score.n) == (told["bundle"], 80)
    assert told["original"] == 1.0


@pytest.mark.tflite
@pytest.mark.skipif(needs_tflite[1].args[0], reason="the tflite extra is not installed")
def test_tflite_layer_left_out_is_counted_as_float(tflite, tmp_path):
    from packager.accuracy.analyze import analyze

    found = analyze(str(tflite / "net.tflite"), str(tflite / "cal.npz"), target="android-arm64", runtime="tflite")
    names = [one.layer.name for one in found.layers]
    assert found.whole["int8_share"]["macs"] == 1.0
    recipe = tmp_path / "mixed.toml"
    recipe.write_text(f'precision = "int8"\nexclude = ["{names[0]}"]\n')
    built = made(tflite, "net.tflite", "android-arm64", runtime="tflite", recipe=str(recipe), search_minutes=0.0,
                 allow_drop=True)  # fmt: skip
    left = sum(one.layer.macs for one in found.layers[:1]) / sum(one.layer.macs for one in found.layers)
    assert built.manifest.facts["int8_share"]["macs"] == pytest.approx(1 - left, abs=1e-5)


@pytest.mark.tflite
@pytest.mark.skipif(needs_tflite[1].args[0], reason="the tflite extra is not installed")
def test_tflite_search_tries_floats_in_and_out_where_the_user_left_them_open(tflite, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for io, expected in (("", True), ("int8", False)):
        recipe = tmp_path / "r.toml"
        recipe.write_text(f'precision = "int8"\nio = "{io}"\n')
        built = made(tflite, "net.tflite", "android-arm64", runtime="tflite", recipe=str(recipe), metric="cosine",
                     max_drop=0.0, search_minutes=1.0, allow_drop=True, eval=str(tflite / "cal.npz"))  # fmt: skip
        probed = [step["step"] for step in built.manifest.facts["search"] if "sqnr_db" in step]
        assert ("floats in and out" in probed) is expected


def test_tensorrt_graph_is_searched_with_the_same_pieces(tmp_path):
    nets.sets(tmp_path, nets.uneven(tmp_path / "net.onnx"), samples=100)
    built = made(tmp_path, "net.onnx", "jetson-orin", runtime="tensorrt")
    facts = built.manifest.facts
    assert facts["accuracy"]["original"] - facts["accuracy"]["bundle"] <= 0.01
    assert len(facts["search"]) > 1
    assert facts["int8_share"]["macs"] >= 0.8
