"""edgepack inspect, verify, unpack."""

import hashlib
import json
import math

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.packager import models


def test_inspect_json_is_the_manifest(edgepack, bundle):
    document = edgepack("inspect", bundle, "--json").json
    assert document["schema"] == "edgepack.manifest/1"
    assert document["target"] == "raspberry-pi-5"
    assert document["digest"].startswith("sha256:")
    assert {"runtime", "files", "inputs", "outputs", "golden", "steps", "recipe", "calibration"} <= set(document)
    edgepack("unpack", bundle, "out")
    raw = (bundle.parent / "out" / "manifest.json").read_bytes()
    assert json.loads(raw) == {key: value for key, value in document.items() if key not in {"digest", "signatures"}}
    assert document["digest"] == "sha256:" + hashlib.sha256(raw).hexdigest()


def test_inspect_tells_people_what_the_device_needs(edgepack, bundle):
    done = edgepack("inspect", bundle)
    assert done.status == 0
    for word in ("raspberry-pi-5", "onnxruntime >= ", "dotprod", "image", "scores", "quantize_static", "20 samples"):
        assert word in done.out


def test_verify(edgepack, bundle):
    done = edgepack("verify", bundle)
    assert (done.status, "whole" in done.out) == (0, True)
    document = edgepack("verify", bundle, "--json").json
    assert (document["whole"], document["files"]) == (True, 3)


def test_verify_finds_one_flipped_bit(edgepack, bundle):
    raw = bytearray(bundle.read_bytes())
    raw[len(raw) // 2] ^= 1
    bundle.write_bytes(raw)
    done = edgepack("verify", bundle, "--json")
    assert (done.status, done.out) == (7, "")
    assert "edgepack: the bundle is not whole" in done.err


def test_unpack_gives_a_model_that_runs(edgepack, bundle, place):
    done = edgepack("unpack", bundle, "out", "--json")
    assert done.status == 0
    path = place / "out" / done.json["model_file"]
    assert models.run_onnx(path, {"image": models.images(1)})["scores"].shape == (1, 10)
    assert sorted(file.name for file in place.iterdir()) == ["b.edgepack", "out", "samples.npz", "tiny.onnx"]


def test_unpack_into_an_empty_folder_and_not_into_a_full_one(edgepack, bundle, place):
    (place / "out").mkdir()
    assert edgepack("unpack", bundle, "out").status == 0
    assert edgepack("unpack", bundle, "out").status == 2
    assert edgepack("unpack", bundle, "deep/er/out").status == 0


@pytest.mark.parametrize("folder", ["b.edgepack", "b.edgepack/out"])
def test_unpack_where_it_cannot_be(edgepack, bundle, folder):
    done = edgepack("unpack", bundle, folder)
    assert (done.status, done.out) == (2, "")
    assert "bug" not in done.err


def test_unpacked_files_are_not_executable_by_others(edgepack, bundle, place):
    edgepack("unpack", bundle, "out")
    assert not any(path.stat().st_mode & 0o111 for path in (place / "out").rglob("*") if path.is_file())


def test_inspect_of_a_model_counts_what_is_in_it(edgepack, model):
    told = edgepack("inspect", model, "--json").json
    graph = onnx.load(model).graph
    assert (told["format"], told["quantized"]) == ("onnx", False)
    assert [one["name"] for one in told["inputs"]] == [value.name for value in graph.input]
    assert sum(told["operators"].values()) == len([node for node in graph.node if node.op_type != "Constant"])
    assert told["parameters"] == sum(
        math.prod(one.dims) for one in graph.initializer if one.data_type != TensorProto.INT64
    )
    assert told["macs"] > 0
    shown = edgepack("inspect", model).out
    assert f"{told['parameters']:,} parameters" in shown
    assert f"{told['macs'] / 1e6:,.3f} M multiply-adds" in shown


def test_weights_in_constant_nodes_count_and_free_sizes_are_asked_for(edgepack, place):
    """As Paddle exports: no initialiser, and height and width left free."""
    weights = onnx.numpy_helper.from_array(np.ones((4, 3, 3, 3), dtype="float32"), "w")
    nodes = [
        helper.make_node("Constant", [], ["w"], "weights", value=weights),
        helper.make_node("Conv", ["x", "w"], ["y"], "conv"),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, depth, None, None])
        for name, depth in (("x", 3), ("y", 4))
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), place / "paddle.onnx"
    )
    told = edgepack("inspect", "paddle.onnx", "--json").json
    assert (told["operators"], told["parameters"], told["macs"]) == ({"Conv": 1}, 108, None)
    assert "multiply-adds need --shape" in edgepack("inspect", "paddle.onnx").out
    sized = edgepack("inspect", "paddle.onnx", "--shape", "x=1x3x6x6", "--json").json
    assert sized["macs"] == 4 * 4 * 4 * 27  # four channels of 4x4, each a 3x3x3 window


def test_inspect_of_what_is_neither_bundle_nor_model(edgepack, place):
    (place / "notes.txt").write_text("neither", encoding="utf-8")
    done = edgepack("inspect", "notes.txt")
    assert done.status == 7
    assert "does not end as a zip" in done.err
