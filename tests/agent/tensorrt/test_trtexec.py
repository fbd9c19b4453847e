"""trtexec: texts written for these tests in NVIDIA's documented format. Synthetic: no board printed them."""

import json
import stat

import pytest

from agent.contract.errors import DeviceError
from agent.tensorrt import trtexec
from agent.tensorrt.api import BuildRequest

PASSED = """&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # trtexec --onnx=m.onnx
[01/02/2026-03:04:05] [I] Selected Device: Orin
[01/02/2026-03:05:05] [I] Engine built in 61.25 sec.
&&&& PASSED TensorRT.trtexec [TensorRT v100300] # trtexec --onnx=m.onnx
"""
FAILED = """&&&& RUNNING TensorRT.trtexec [TensorRT v8602] # trtexec --onnx=m.onnx
[01/02/2026-03:04:09] [W] [TRT] Tactic Device request: 4229MB Available: 2658MB. Device memory is insufficient to use tactic.
[01/02/2026-03:04:09] [E] Error[10]: Could not find any implementation for node conv1.
&&&& FAILED TensorRT.trtexec [TensorRT v8602] # trtexec --onnx=m.onnx
"""


def asked(**options):
    profile = {"image": [[1, 3, 8, 8], [4, 3, 8, 8], [8, 3, 8, 8]]}
    given = {"precision": "int8-fp16", "strong": True, "profiles": [profile], "workspace_bytes": 1 << 30, "level": 2}
    return BuildRequest(**{**given, **options})


@pytest.mark.parametrize(
    ("digits", "text"), [("100300", "10.3.0"), ("101602", "10.16.2"), ("8602", "8.6.2"), ("8502", "8.5.2")]
)
def test_version(digits, text):
    assert trtexec.parse_version(digits) == text


def test_logs():
    assert trtexec.parse_log(PASSED) == {"passed": True, "seconds": 61.25, "errors": [], "memory": False}
    told = trtexec.parse_log(FAILED)
    assert not told["passed"]
    assert told["memory"]
    assert told["errors"] == ["Error[10]: Could not find any implementation for node conv1."]


def test_commands_of_10_and_8_5():
    new = trtexec.build_arguments("trtexec", "m.onnx", asked(), "m.plan", "10.3.0")
    assert {"--stronglyTyped", "--skipInference", "--builderOptimizationLevel=2", "--memPoolSize=workspace:1024"} <= {
        *new
    }
    assert "--minShapes=image:1x3x8x8" in new
    assert "--maxShapes=image:8x3x8x8" in new
    old = trtexec.build_arguments("trtexec", "m.onnx", asked(strong=False), "m.plan", "8.5.2")
    assert {"--buildOnly", "--fp16", "--int8"} <= {*old}
    assert not [word for word in old if "OptimizationLevel" in word or "strongly" in word]


def test_times_and_outputs():
    times = json.dumps([{"h2dMs": 0.05, "computeMs": 1.5, "d2hMs": 0.02}])
    assert trtexec.parse_times(times) == {"h2d": [50000], "compute": [1500000], "d2h": [20000]}
    outputs = json.dumps([{"name": "y", "dimensions": "1x2", "values": [1.0, 2.0]}])
    assert trtexec.parse_outputs(outputs)["y"].tolist() == [[1.0, 2.0]]
    for read in (trtexec.parse_times, trtexec.parse_outputs):
        with pytest.raises(DeviceError, match="cannot be read"):
            read("[{}]")


def test_a_build_goes_through_the_real_process_and_says_its_failure(tmp_path, monkeypatch):
    tool = tmp_path / "trtexec"
    text = tmp_path / "text"
    tool.write_text(
        f'#!/bin/sh\nfor word in "$@"; do case $word in --saveEngine=*) printf plan > "${{word#--saveEngine=}}";; esac; done\n'
        f"cat {text}\n"
    )
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    text.write_text(PASSED)
    assert trtexec.installed_version() == "10.3.0"
    built = trtexec.build("m.onnx", asked(), tmp_path / "cache", lambda _: None)
    assert (built.plan, built.seconds) == (b"plan", 61.25)
    text.write_text(FAILED)
    with pytest.raises(DeviceError, match="built no engine") as caught:
        trtexec.build("m.onnx", asked(), tmp_path / "cache", lambda _: None)
    assert caught.value.code == "out-of-memory"
    assert "conv1" in caught.value.where
    assert list((tmp_path / "cache").iterdir()) == []
