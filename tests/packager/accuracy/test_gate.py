"""Which samples a search sees, and which tell the accuracy."""

import numpy as np
import pytest

from packager.pipeline import build
from tests.packager.accuracy import nets


def made(place, **options):
    given = {"recipe": "int8", "calibration": str(place / "cal.npz"), "eval": str(place / "eval.npz")}
    return build(str(place / "net.onnx"), "linux-x86-64", output=place / "b.edgepack", **{**given, **options})


@pytest.fixture
def hard(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    nets.sets(tmp_path, nets.uneven(tmp_path / "net.onnx"), samples=500)
    return tmp_path


def test_search_without_a_test_set_holds_half_of_the_samples_out(hard):
    facts = made(hard).manifest
    told = facts.facts["accuracy"]
    assert (told["n"], told["samples"]) == (250, "held-out")
    (finding,) = [one for one in facts.findings if one.code == "split-eval"]
    assert "chose by 250 of the samples" in finding.message
    assert "--test" in finding.advice
    assert told["original"] - told["bundle"] <= 0.01


def test_user_s_test_set_leaves_the_eval_set_whole(hard):
    told = made(hard, test=str(hard / "test.npz")).manifest.facts["accuracy"]
    assert (told["n"], told["samples"]) == (500, "test")


def test_nothing_searched_and_all_samples_tell(hard):
    told = made(hard, search_minutes=0.0, allow_drop=True).manifest.facts["accuracy"]
    assert (told["n"], told["samples"]) == (500, "eval")


def test_metric_of_all_samples_at_once_is_not_split(hard):
    (hard / "m.py").write_text(
        "import numpy as np\n\n\ndef score(outputs, labels):\n"
        "    hits = outputs['scores'].argmax(1) == labels\n"
        "    return float(np.sqrt(hits.mean()))\n"
    )
    manifest = made(hard, metric=f"{hard / 'm.py'}:score", allow_drop=True).manifest
    told = manifest.facts["accuracy"]
    assert (told["n"], told["samples"]) == (500, "eval")
    low, high = told["drop_interval"]
    assert low <= told["drop_points"] <= high
    assert np.isfinite(told["bundle"])
