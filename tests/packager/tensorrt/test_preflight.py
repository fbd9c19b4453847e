"""NVIDIA's own parser and builder, for real, in its child process."""

import onnx
import pytest
from onnx import helper

from packager.shapes import Range
from packager.tensorrt import preflight as module
from packager.tensorrt.preflight import preflight
from tests.packager.tensorrt.graphs import model, quantized

pytestmark = [pytest.mark.tensorrt, pytest.mark.skipif(not module.available(), reason="needs the tensorrt extra")]


@pytest.fixture
def check(tmp_path):
    def go(built, ranges=None, **limits):
        onnx.save(built, str(tmp_path / "m.onnx"))
        return preflight(tmp_path / "m.onnx", ranges or {}, **limits)

    return go


def test_a_q_dq_convolution_is_ok_and_runs_in_int8(check):
    told = check(quantized())
    assert told.verdict == "ok"
    assert "1.7.1" in told.tool
    assert len(told.table.int8) == len(told.table.compute) == 1
    assert all("not run on hardware" in one.message for one in told.findings()[:1])


def test_a_range_of_shapes_is_built(check):
    dynamic = model([helper.make_node("Relu", ["x"], ["y"], "r")], shape=("n", 3, 8, 8))
    assert check(dynamic).verdict == "rejected"
    assert check(dynamic, {"x": Range((1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8))}).verdict == "ok"


def test_a_rejected_operator_is_named(check):
    told = check(model([helper.make_node("Det", ["x"], ["y"], "determinant")]))
    assert told.verdict == "rejected"
    assert (told.nodes[0].node, told.nodes[0].operator) == ("determinant", "Det")
    assert "false" not in told.reason


@pytest.mark.parametrize("built", [quantized(point=3), quantized(point=128, kind="uint8")], ids=["asymmetric", "uint8"])
def test_the_parser_itself_refuses_what_the_rules_refuse(check, built):
    assert check(built).verdict == "rejected"


def test_where_the_stand_in_lacks_an_operator_its_no_is_unverified(check):
    import numpy as np

    boxes = [("s", np.zeros((1, 1, 3), "float32")), ("n", np.asarray([2]))]
    built = model([helper.make_node("NonMaxSuppression", ["x", "s", "n"], ["y"], "nms")], boxes, shape=(1, 3, 4), out=7)
    told = check(built)
    assert told.verdict == "unverified"
    assert "stand-in" in told.reason


def test_a_time_limit_is_kept(check):
    told = check(quantized(), seconds=0.01)
    assert told.verdict == "unverified"
    assert "longer than" in told.reason


def test_a_memory_limit_is_kept(check):
    told = check(quantized(), memory_mb=40)
    assert told.verdict == "unverified"
    assert "40 MB" in told.reason


def test_without_the_extra_nothing_is_claimed(check, monkeypatch):
    monkeypatch.setattr(module, "MODULE", "no_such_module")
    told = check(quantized())
    assert told.verdict == "not-checked"
    assert "edgepack[tensorrt]" in told.findings()[0].advice
