"""TFLite as it is told: state between runs, free shapes, XNNPACK on and off, threads, and what the delegate took."""

import numpy as np
import pytest

from agent.contract.errors import ContractError, DeviceError
from agent.litert import profiler
from agent.runners.tflite import Runner
from tests.tflite_models import Graph, add, classifier, fb, needs_tflite, running_sum, samples

pytestmark = needs_tflite


@pytest.fixture
def runner():
    one = Runner()
    yield one
    one.close()


def saved(tmp_path, raw):
    (tmp_path / "net.tflite").write_bytes(raw)
    return str(tmp_path / "net.tflite")


def test_streaming_model_keeps_its_state_between_runs(runner, tmp_path):
    path = saved(tmp_path, running_sum())
    runner.load(path, {})
    chunk = {"chunk": np.ones((1, 4), np.float32)}
    assert [runner.run(chunk)[0].tolist() for _ in range(3)] == [[[one] * 4] for one in (1, 2, 3)]


def test_streaming_model_begins_anew_when_it_is_loaded(runner, tmp_path):
    path = saved(tmp_path, running_sum())
    for _ in range(2):
        runner.load(path, {"provider": "cpu"})
        assert runner.run({"chunk": np.full((1, 4), 2, np.float32)})[0].tolist() == [[2] * 4]
        runner.close()


def test_free_dimension_takes_one_size_after_the_other(runner, tmp_path):
    g = Graph()
    left = g.tensor("left", [1, 4])
    g.graph.tensors[left].shapeSignature = [-1, 4]
    out = add(g, left, g.tensor("one", [1], [1]), "out", [1, 4])
    g.graph.tensors[out].shapeSignature = [-1, 4]
    runner.load(saved(tmp_path, g.raw([left], [out])), {})
    for rows in (1, 3, 2):
        (result,) = runner.run({"left": np.zeros((rows, 4), np.float32)})
        assert result.tolist() == [[1] * 4] * rows


def test_xnnpack_takes_operators_and_can_be_switched_off(runner, tmp_path):
    path, feed = saved(tmp_path, classifier()), {"image": samples(1)}
    results = {}
    for provider in ("xnnpack", "cpu"):
        runner.load(path, {"provider": provider, "threads": 1})
        results[provider] = runner.run(feed)[0]
        placed = runner.placement()
        assert ("xnnpack" in placed) == (provider == "xnnpack")
        assert sum(placed.values()) == 9
        runner.close()
    assert np.allclose(results["xnnpack"], results["cpu"], atol=1e-5)


def test_xnnpack_asked_for_and_not_used_is_an_error(runner, tmp_path):
    g = Graph()
    ids = g.tensor("ids", [1, 4], dtype="int32")
    out = g.op("NEG", [ids], [g.tensor("out", [1, 4], dtype="int32")], fb.NegOptionsT(), "NegOptions")
    runner.load(saved(tmp_path, g.raw([ids], [out])), {"provider": "xnnpack"})
    with pytest.raises(DeviceError) as error:
        runner.placement()
    assert error.value.code == "provider-not-used"
    assert "NEG" in error.value.where


def test_unknown_provider_and_option(runner, tmp_path):
    path = saved(tmp_path, classifier())
    with pytest.raises(DeviceError, match="no provider 'gpu'"):
        runner.load(path, {"provider": "gpu"})
    with pytest.raises(ContractError, match="unknown session option 'delegate'"):
        runner.load(path, {"session_options": {"delegate": "gpu"}})


def test_file_that_is_no_model(runner, tmp_path):
    with pytest.raises(DeviceError) as error:
        runner.load(saved(tmp_path, b"TFL3 is not here"), {})
    assert error.value.code == "load-failed"


def layers_of(runner, path, feed, **options):
    runner.load(path, {"threads": 1, "layer_times": True, **options})
    times = [runner.profiled(feed) for _ in range(4)]
    assert min(times) > 0
    return runner.layers()


def test_layers_of_own_kernels_are_the_operators(runner, tmp_path):
    rows = layers_of(runner, saved(tmp_path, classifier()), {"image": samples(1)}, provider="cpu")
    assert [(row["kind"], row["original"]) for row in rows][2:5] == [
        ("ADD", ["both"]),
        ("PAD", ["padded"]),
        ("CONV_2D", ["third"]),
    ]
    assert {row["provider"] for row in rows} == {"cpu"}
    assert [row["kind"] for row in rows if row["overhead"]] == ["PAD"]
    assert sum(row["time_ns"] for row in rows) > 0


def test_layers_inside_xnnpack_are_tied_to_the_operators(runner, tmp_path):
    rows = layers_of(runner, saved(tmp_path, classifier()), {"image": samples(1)}, provider="xnnpack")
    assert {row["provider"] for row in rows} == {"xnnpack"}
    named = [row["original"] for row in rows if row["original"]]
    fused = ["padded", "third"]
    assert named == [["first"], ["second"], ["both"], fused, ["pooled"], ["flat"], ["scores"], ["probabilities"]]


def test_what_xnnpack_cannot_run_stands_between_its_parts(runner, tmp_path):
    g = Graph()
    source, one = g.tensor("x", [1, 64]), g.tensor("one", [1], [1.0])
    before = add(g, add(g, source, one, "h", [1, 64]), one, "h2", [1, 64])
    axis = g.tensor("axis", [], [1], dtype="int32")
    summed = g.op("CUMSUM", [before, axis], [g.tensor("sums", [1, 64])], fb.CumsumOptionsT(), "CumsumOptions")
    raw = g.raw([source], [add(g, add(g, summed, one, "k", [1, 64]), before, "out", [1, 64])])
    rows = layers_of(runner, saved(tmp_path, raw), {"x": np.zeros((1, 64), np.float32)})
    assert [(row["original"], row["provider"]) for row in rows] == [
        (["h"], "xnnpack"),
        (["h2"], "xnnpack"),
        (["sums"], "cpu"),
        (["k"], "xnnpack"),
        (["out"], "xnnpack"),
    ]


def test_layers_of_an_unknown_version_are_not_read(runner, tmp_path, monkeypatch):
    monkeypatch.setattr(profiler, "VERSIONS", ("1.",))
    with pytest.raises(DeviceError, match="is not known") as error:
        runner.load(saved(tmp_path, classifier()), {"layer_times": True})
    assert error.value.code == "no-layers"


def test_layers_of_another_batch_are_not_told(runner, tmp_path):
    runner.load(saved(tmp_path, classifier()), {"layer_times": True})
    with pytest.raises(DeviceError, match="another size") as error:
        runner.profiled({"image": samples(2)})
    assert error.value.code == "no-layers"
