"""evaluate, analyze, and build with a budget: what they print, and how they end."""

import json

import numpy as np
import pytest

from agent.contract.archive import BundleReader
from tests.packager import models
from tests.packager.accuracy import nets

BUILD = ("build", "net.onnx", "-t", "linux-x86-64", "-r", "int8", "-c", "cal.npz", "--eval", "eval.npz")


@pytest.fixture
def easy(place):
    nets.sets(place, models.classifier(place / "net.onnx", width=16))
    return place


@pytest.fixture
def hard(place):
    nets.sets(place, nets.uneven(place / "net.onnx"))
    return place


def test_evaluate_prints_the_four_keys(edgepack, easy):
    done = edgepack("evaluate", "net.onnx", "--eval", "eval.npz", "--json")
    assert done.status == 0
    assert set(done.json) == {"metric", "score", "n", "interval"}
    assert (done.json["metric"], done.json["n"]) == ("top1", nets.SAMPLES)
    low, high = done.json["interval"]
    assert low < done.json["score"] < high
    assert done.json["score"] == pytest.approx(0.9, abs=0.06)


def test_build_tells_the_accuracy_and_the_bundle_scores_the_same(edgepack, easy):
    done = edgepack(*BUILD, "--test", "test.npz", "-o", "b.edgepack", "--json")
    assert done.status == 0
    told = done.json["accuracy"]
    assert set(told) >= {"metric", "original", "bundle", "n"}
    assert (told["metric"], told["n"], told["samples"]) == ("top1", nets.SAMPLES, "test")
    assert 0.9 < done.json["int8_share"]["macs"] <= 1
    assert 0.8 < done.json["int8_share"]["weights"] <= 1
    again = edgepack("evaluate", "b.edgepack", "--eval", "test.npz", "--json").json
    assert again["score"] == told["bundle"]
    with BundleReader("b.edgepack") as reader:
        assert reader.manifest.facts["accuracy"] == told


def test_uneven_channels_are_cured_and_all_stays_in_int8(edgepack, hard):
    blind = edgepack(*BUILD, "--search-minutes", "0", "--allow-drop", "-o", "blind.edgepack", "--json").json
    done = edgepack(*BUILD, "--test", "test.npz", "-o", "b.edgepack", "--json")
    assert done.status == 0, done.err
    told = done.json["accuracy"]
    assert blind["accuracy"]["original"] - blind["accuracy"]["bundle"] > 0.05
    assert told["original"] - told["bundle"] <= 0.01
    assert done.json["int8_share"]["macs"] >= 0.8
    with BundleReader("b.edgepack") as reader:
        steps = reader.manifest.facts["search"]
    assert steps[0]["step"] == "as the recipe says"
    assert len(steps) > 1


def test_budget_that_cannot_be_met_leaves_no_bundle(edgepack, hard):
    before = sorted(path.name for path in hard.iterdir())
    done = edgepack(*BUILD, "--search-minutes", "0")
    assert done.status == 6
    assert "top1 falls from" in done.err
    assert "1 point allowed" in done.err
    assert sorted(path.name for path in hard.iterdir()) == before


def test_budget_missed_and_allowed_is_a_finding(edgepack, hard):
    done = edgepack(*BUILD, "--search-minutes", "0", "--allow-drop", "--json")
    assert done.status == 0
    assert "over-budget" in {finding["code"] for finding in done.json["findings"]}


def test_an_error_as_metric_takes_a_budget_in_percent(edgepack, easy):
    with np.load("eval.npz") as data:
        np.savez("plain.npz", image=data["image"])
        far = np.random.default_rng(0).normal(0, 9, (len(data["image"]), 10)).astype(np.float32)
        np.savez("truth.npz", image=data["image"], labels=far)
    done = edgepack(*BUILD[:-1], "plain.npz", "--metric", "mse")
    assert done.status == 2
    assert "off by 0 from themselves" in done.err
    assert "scoring" not in done.err
    done = edgepack(*BUILD[:-1], "truth.npz", "--metric", "mse", "--max-drop", "1")
    assert done.status == 2
    assert "--max-drop-relative" in done.err
    done = edgepack(*BUILD[:-1], "truth.npz", "--metric", "mse")
    assert done.status == 0, done.err
    assert "5 % of the score (the default) allowed" in done.out


def test_search_goes_on_where_it_stopped(edgepack, hard):
    first = edgepack(*BUILD, "-o", "1.edgepack")
    second = edgepack(*BUILD, "-o", "2.edgepack")
    assert (first.status, second.status) == (0, 0)
    assert "trying: as the recipe says" in first.err
    assert "trying: " not in second.err
    assert (hard / "1.edgepack").read_bytes() == (hard / "2.edgepack").read_bytes()


def test_analyze_names_the_layers_and_the_worst_band(edgepack, hard):
    done = edgepack("analyze", "net.onnx", "-c", "cal.npz", "--eval", "eval.npz", "-o", "plot.html", "--json")
    assert done.status == 0, done.err
    rows = done.json["layers"]
    assert {row["name"] for row in rows} == {"first", "second", "last"}
    assert all(set(row) >= {"name", "operator", "drop", "sqnr_db", "macs", "weights"} for row in rows)
    by_name = {row["name"]: row for row in rows}
    assert by_name["first"]["macs"] == 8 * 8 * 8 * 9
    assert by_name["second"]["weights"] == 64
    assert by_name["last"]["sqnr_db"] > by_name["second"]["sqnr_db"] + 10
    assert done.json["whole"]["drop"] > 5
    page = (hard / "plot.html").read_text()
    assert page.count('<td class="bar"><i ') == 3
    assert "prefers-color-scheme:dark" in page
    assert "http:" not in page
    assert "https:" not in page


def test_analyze_of_a_layer_that_does_not_exist(edgepack, hard):
    done = edgepack("analyze", "net.onnx", "-c", "cal.npz", "--layer", "secnd")
    assert done.status == 2
    assert "did you mean 'second'" in done.err


def test_labels_of_the_wrong_length_stop_the_build_before_its_work(edgepack, easy):
    with np.load("eval.npz") as data:
        np.savez("short.npz", image=data["image"], labels=data["labels"][:-1])
    done = edgepack("build", "net.onnx", "-t", "linux-x86-64", "-r", "fp32", "--eval", "short.npz")
    assert done.status == 2
    assert "299 labels for 300 samples" in done.err
    assert "running the original" not in done.err


def test_metric_that_returns_a_string(edgepack, easy):
    (easy / "m.py").write_text("def score(outputs, labels):\n    return 'good'\n")
    done = edgepack("evaluate", "net.onnx", "--eval", "eval.npz", "--metric", "m.py:score")
    assert done.status == 2
    assert "the metric returned 'good', a str" in done.err


def test_eval_set_of_10_samples(edgepack, easy):
    with np.load("eval.npz") as data:
        np.savez("ten.npz", image=data["image"][:10], labels=data["labels"][:10])
    done = edgepack("evaluate", "net.onnx", "--eval", "ten.npz")
    assert done.status == 0
    assert "10 samples: the true top1 lies between" in done.out


def test_budget_without_an_evaluation_set(edgepack, easy):
    done = edgepack("build", "net.onnx", "-t", "linux-x86-64", "-r", "fp32", "--max-drop", "1")
    assert done.status == 2
    assert "give --eval" in done.err


def test_agreement_of_a_bundle_wants_its_original(edgepack, easy):
    with np.load("eval.npz") as data:
        np.savez("bare.npz", image=data["image"])
    assert edgepack("build", "net.onnx", "-t", "linux-x86-64", "-r", "fp32", "-o", "b.edgepack").status == 0
    alone = edgepack("evaluate", "b.edgepack", "--eval", "bare.npz")
    assert alone.status == 2
    assert "--original" in alone.err
    both = edgepack("evaluate", "b.edgepack", "--eval", "bare.npz", "--original", "net.onnx", "--json")
    assert both.json == {"metric": "agreement", "score": 1.0, "n": 300, "interval": both.json["interval"]}


def test_project_file_names_set_and_metric(edgepack, easy):
    (easy / "edgepack.toml").write_text(
        'model = "net.onnx"\ntarget = "linux-x86-64"\nrecipe = "fp32"\neval = "eval.npz"\nmetric = "top5"\n'
    )
    done = edgepack("build", "-o", "b.edgepack", "--json")
    assert done.status == 0, done.err
    assert done.json["accuracy"]["metric"] == "top5"
    assert json.dumps(done.json["accuracy"]["drop_points"]) == "0.0"


def test_layers_that_nothing_cures_are_left_in_float(edgepack, place):
    nets.sets(place, nets.uneven(place / "net.onnx", spread=30000.0, act="Elu"), samples=150)
    with np.load("eval.npz") as data:
        np.savez("eval.npz", image=data["image"])
    # The classes may come out right by luck, where the numbers are far off.
    done = edgepack(*BUILD, "--metric", "cosine", "-o", "b.edgepack", "--json")
    assert done.status == 0, done.err
    told = done.json["accuracy"]
    assert told["original"] - told["bundle"] <= 0.01
    with BundleReader("b.edgepack") as reader:
        left, steps = reader.manifest.recipe["exclude"], reader.manifest.facts["search"]
    assert left
    assert set(left) <= {"first", "second"}
    assert 0 < done.json["int8_share"]["macs"] < 1
    assert "layers in float" in " ".join(step["step"] for step in steps)
    assert "searched" in {finding["code"] for finding in done.json["findings"]}


def test_search_says_what_blocks_a_budget_that_it_cannot_meet(edgepack, place):
    nets.sets(place, nets.uneven(place / "net.onnx", act="Elu"), samples=60)
    with np.load("eval.npz") as data:
        np.savez("eval.npz", image=data["image"])
    # No INT8 gives the very numbers of the original.
    done = edgepack(*BUILD, "--metric", "cosine", "--max-drop", "0")
    assert done.status == 6
    assert "what blocks it: " in done.err
    assert "second (Conv, " in done.err
    assert "best of " in done.err
    assert not list(place.glob("*.edgepack"))
