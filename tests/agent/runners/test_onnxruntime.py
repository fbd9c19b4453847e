"""ONNX Runtime as it is told, and never silently something else."""

import numpy as np
import pytest

from agent.contract.errors import ContractError, DeviceError
from agent.runners.onnxruntime import Runner, provider_name
from packager import demo_data

AVAILABLE = ["CUDAExecutionProvider", "CPUExecutionProvider"]


@pytest.fixture
def runner():
    one = Runner()
    yield one
    one.close()


def feed(batch=2):
    with np.load(demo_data.eval_path()) as data:
        return {"image": data["image"][:batch]}


def test_runs_the_model_with_the_names_of_its_outputs(runner):
    runner.load(str(demo_data.model_path()), {"threads": 1})
    (logits,) = runner.run(feed())
    assert runner.output_names() == ["logits"]
    assert (logits.shape, logits.dtype) == ((2, 10), np.float32)
    assert runner.io()["inputs"][0][0] == "image"
    assert runner.version()


@pytest.mark.parametrize("level", ["disable", "basic", "extended", "all"])
def test_every_level_gives_the_same_numbers(runner, level):
    runner.load(str(demo_data.model_path()), {"session_options": {"graph_optimization_level": level}})
    (logits,) = runner.run(feed(500))
    with np.load(demo_data.eval_path()) as data:
        assert (logits.argmax(axis=1) == data["labels"][:500]).mean() > 0.8


def test_placement_counts_every_node_once(runner, tmp_path):
    runner.load(str(demo_data.model_path()), {"profile": str(tmp_path)})
    runner.run(feed())
    runner.run(feed())
    counts = runner.placement()
    assert list(counts) == ["CPUExecutionProvider"]
    assert 3 < counts["CPUExecutionProvider"] < 40
    assert list(tmp_path.iterdir()) == []


def test_config_entries_reach_the_session(runner):
    options = {"session_options": {"config": {"session.intra_op.allow_spinning": 0}}}
    runner.load(str(demo_data.model_path()), options)
    assert len(runner.run(feed())) == 1


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"graph_optimisation_level": "all"}, "unknown session option"),
        ({"graph_optimization_level": "most"}, "unknown graph_optimization_level"),
    ],
)
def test_session_option_that_is_not_known_is_refused(runner, options, match):
    with pytest.raises(ContractError, match=match) as caught:
        runner.load(str(demo_data.model_path()), {"session_options": options})
    assert "one of" in caught.value.expected


def test_file_that_is_no_model(runner, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(DeviceError, match="does not load the model") as caught:
        runner.load(str(tmp_path / "model.onnx"), {})
    assert caught.value.code == "load-failed"
    assert len(caught.value.what) < 800


@pytest.mark.parametrize("asked", ["cuda", "CUDA", "CUDAExecutionProvider"])
def test_provider_by_its_short_or_full_name(asked):
    assert provider_name(asked, AVAILABLE) == "CUDAExecutionProvider"


@pytest.mark.parametrize("asked", ["tensorrt", "CUDAExecutionProvidr", "gpu", ""])
def test_provider_that_is_not_there_never_falls_back(asked):
    with pytest.raises(DeviceError, match="has no provider") as caught:
        provider_name(asked, AVAILABLE)
    assert caught.value.code == "no-provider"
    assert "CUDAExecutionProvider, CPUExecutionProvider" in caught.value.expected


def test_nearest_provider_is_offered():
    with pytest.raises(DeviceError, match="did you mean 'CUDAExecutionProvider'"):
        provider_name("CUDAExecutionProvidr", AVAILABLE)
