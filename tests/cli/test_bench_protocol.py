"""How `bench` measures, on this machine: sustained, threads auto, batch, streams, profile; and what excludes what."""

import pytest

from tests.packager import models

QUICK = ("local", "--seconds", "0.3", "--rounds", "1", "--json")


@pytest.fixture
def bundle(edgepack, model):
    done = edgepack("build", model, "--target", "linux-x86-64", "--recipe", "fp32", "-o", "a.edgepack", "--no-check")
    assert done.status == 0, done.err
    return "a.edgepack"


def bench(edgepack, bundle, *options, status=0):
    done = edgepack("bench", bundle, *QUICK, *options)
    assert done.status == status, done.err
    return done.json["reports"][0] if status == 0 else done


def test_profile_and_best_threads(edgepack, bundle):
    found = bench(edgepack, bundle, "--profile", "--threads", "auto")
    assert found["protocol"]["threads_tried"].keys() >= {"1"}
    assert str(found["runtime"]["threads"]) in found["protocol"]["threads_tried"]
    layers = found["profile"]["layers"]
    assert layers
    assert sum(layer["share"] for layer in layers) == pytest.approx(1)
    assert any(layer["original"] for layer in layers)
    assert all(layer["provider"] == "CPUExecutionProvider" for layer in layers)
    assert 0 <= found["profile"]["overhead_share"] <= 1
    assert found["energy"]["rails"] or found["energy"]["unread"]
    shown = edgepack("results", "show", found["run"])
    assert "slowest of" in shown.out
    assert "threads are best" in shown.out


def test_sustained_course(edgepack, bundle):
    done = edgepack("bench", bundle, "local", "--sustained", "0.05", "--json")
    assert done.status == 0, done.err
    (found,) = done.json["reports"]
    windows = found["sustained"]["windows"]
    assert len(windows) >= 5
    assert windows[0]["minute"] < windows[-1]["minute"] <= 0.06
    assert len(found["rounds"]) == 1
    assert found["rounds"][0]["warmup_ns"] == [], "minute 0 is the first inference's"
    assert "sustained, " in edgepack("results", "show", found["run"]).out


def test_streams_count_all_inferences(edgepack, bundle):
    found = bench(edgepack, bundle, "--streams", "2", "--threads", "1")
    (one,) = found["rounds"]
    assert found["protocol"]["streams"] == 2
    assert found["latency"]["throughput_per_s"] == pytest.approx(one["n"] * 1e9 / one["wall_ns"])


def test_batch_counts_its_samples(edgepack, place):
    model = models.classifier(place / "free.onnx", batch="n")
    done = edgepack("build", model, "--target", "linux-x86-64", "--recipe", "fp32", "-o", "b.edgepack", "--no-check")
    assert done.status == 0, done.err
    numbers = bench(edgepack, "b.edgepack", "--batch", "4")["latency"]
    assert numbers["throughput_per_s"] == pytest.approx(4 * 1000 / numbers["mean_ms"], rel=0.01)


def test_batch_of_a_fixed_model(edgepack, bundle):
    done = bench(edgepack, bundle, "--batch", "4", status=4)
    assert "takes 1 at once, not 4" in done.err
    assert "dynamic batch" in done.err


@pytest.mark.parametrize("more", [("--streams", "2"), ("--runs", "5")])
def test_sustained_excludes_streams_and_runs(edgepack, bundle, more):
    done = edgepack("bench", bundle, "local", "--sustained", "0.05", *more)
    assert done.status == 2
    assert "a sustained run is one stream" in done.err


def test_threads_that_are_no_number(edgepack, bundle):
    done = edgepack("bench", bundle, "local", "--threads", "many")
    assert done.status == 2
    assert "many" in done.err
