"""The build half for real: NVIDIA's TensorRT-RTX in TensorRT's place, on this processor, through the agent's own code."""

import sys
from pathlib import Path

import pytest

from agent.contract.errors import DeviceError
from agent.runners import tensorrt as runner
from agent.tensorrt import api, cache

pytestmark = pytest.mark.tensorrt
rtx = pytest.importorskip("tensorrt_rtx", reason="needs the tensorrt extra")
RUNG = {"level": 3, "workspace_bytes": 1 << 28}


def save(path, operator="Relu"):
    import onnx

    node = onnx.helper.make_node(operator, ["x"], ["y"], "act")
    sides = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 4]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([node], "g", sides[:1], sides[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return str(path)


def build(tmp_path, monkeypatch, **recipe):
    monkeypatch.setitem(sys.modules, "tensorrt", rtx)
    given = {"precision": "fp32", "strong": True, "profiles": [{"x": [[1, 4], [2, 4], [8, 4]]}], **recipe}
    said = []
    record = runner.build_engine(
        onnx=save(tmp_path / "m.onnx", recipe.pop("operator", "Relu")),
        recipe={key: value for key, value in given.items() if key != "operator"},
        rung=RUNG,
        place=str(tmp_path / "cache"),
        name="abc",
        backend="python",
        facts={"failed": []},
        progress=said.append,
    )
    return record, said


def test_an_engine_is_built_kept_and_found(tmp_path, monkeypatch):
    record, said = build(tmp_path, monkeypatch)
    assert record["size"] > 100
    assert record["rung"] == RUNG
    assert cache.find(tmp_path / "cache", "abc") == record
    assert any("building the engine" in line for line in said)
    assert Path(record["path"]).read_bytes() == cache.read(record["path"], record["sha256"])


def test_the_parser_s_refusal_names_the_operator(tmp_path, monkeypatch):
    with pytest.raises(api.ParseError) as caught:
        build(tmp_path, monkeypatch, operator="Det")
    assert caught.value.faults[0]["node_operator"] == "Det"
    assert not (tmp_path / "cache").exists()


def test_a_free_dimension_without_a_profile_has_the_builder_s_words(tmp_path, monkeypatch):
    with pytest.raises(DeviceError, match="built no engine") as caught:
        build(tmp_path, monkeypatch, profiles=[])
    assert "optimization profile" in caught.value.where


def test_precision_flags_are_gone(tmp_path, monkeypatch):
    with pytest.raises(DeviceError, match=r"no BuilderFlag\.INT8"):
        build(tmp_path, monkeypatch, strong=False, precision="int8")
