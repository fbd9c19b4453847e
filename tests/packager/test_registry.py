"""The folder is the registry: what is in it is what there is."""

from pathlib import Path

import pytest

import packager.convert
import packager.sources
import targets
from agent.contract.errors import UsageError
from packager import registry


def stems(package):
    return sorted(path.stem for path in Path(package.__path__[0]).glob("*.py") if not path.name.startswith("_"))


def test_every_file_is_found_and_named_after_what_it_does():
    assert registry.target_names() == stems(targets)
    assert [one.format for one in registry.sources()] == stems(packager.sources)
    assert [f"{one.result}_from_{one.source}" for one in registry.converters()] == stems(packager.convert)


def test_every_target_keeps_its_name():
    for name in registry.target_names():
        target = registry.target(name)
        assert target.name == name
        assert target.recipes


@pytest.mark.parametrize("name", ["onnxruntme", "tensrflow"])
def test_unknown_runtime_lists_the_known(name):
    with pytest.raises(UsageError) as caught:
        registry.target(name)
    assert "onnxruntime" in caught.value.expected


def test_unknown_source_lists_the_known():
    with pytest.raises(UsageError, match="did you mean 'onnx'"):
        registry.source("onx")


@pytest.mark.parametrize("name", ["torch", "pt2", "torchscript"])
def test_pytorch_reaches_onnx_in_one_step(name):
    assert [(edge.source, edge.result) for edge in registry.path_between(name, "onnx")] == [(name, "onnx")]
    assert "onnxruntime" in registry.reachable(name)


def test_no_way_is_none_and_no_step_is_empty():
    assert registry.path_between("onnx", "onnx") == []
    assert registry.path_between("onnx", "punched-cards") is None


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("a/m.onnx", "onnx"),
        ("m.pt2", "pt2"),
        ("m.pt", "torchscript"),
        ("m.torchscript", "torchscript"),
        ("net.py:make", "torch"),
        ("package.module:Net", "torch"),
    ],
)
def test_each_model_is_taken_by_one_source(model, name):
    assert [one.format for one in registry.sources() if one.accepts(model)] == [name]
