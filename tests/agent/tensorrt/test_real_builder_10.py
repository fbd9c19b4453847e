"""The build half for real with the API of TensorRT 10: TensorRT-RTX 1.4.0 in TensorRT's place, floats only (it parses INT8
convolutions and cannot build them).

It cannot be installed beside 1.7.1, so it has a folder of its own, named by EDGEPACK_RTX_1_4:

    pip install --no-deps --target FOLDER tensorrt-rtx-cu12==1.4.0.76 tensorrt-rtx-cu12-bindings==1.4.0.76 \
        tensorrt-rtx-cu12-libs==1.4.0.76
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.agent.tensorrt.test_real_builder import save

FOLDER = os.environ.get("EDGEPACK_RTX_1_4", "")
pytestmark = [
    pytest.mark.tensorrt,
    pytest.mark.skipif(not FOLDER, reason="EDGEPACK_RTX_1_4 names no folder with TensorRT-RTX 1.4.0"),
]
SCRIPT = """
import json, sys
asked = json.loads(sys.argv[1])
import tensorrt_rtx
sys.modules["tensorrt"] = tensorrt_rtx
from agent.contract.errors import EdgepackError
from agent.runners import tensorrt as runner
told = {"version": tensorrt_rtx.__version__, "explicit": hasattr(tensorrt_rtx.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH"),
        "flags": hasattr(tensorrt_rtx.BuilderFlag, "FP16")}
said = []
try:
    record = runner.build_engine(recipe=asked["recipe"], onnx=asked["onnx"], rung={"level": 3, "workspace_bytes": 1 << 28},
        place=asked["place"], name="abc", backend="python", facts={"failed": []}, progress=said.append)
    told |= {"size": record["size"], "said": said}
except EdgepackError as error:
    told |= {"code": error.code, "what": error.what, "where": error.where}
print(json.dumps(told))
"""


def built(tmp_path, operator="Relu", **recipe):
    given = {"precision": "fp32", "strong": True, "profiles": [{"x": [[1, 4], [2, 4], [8, 4]]}], **recipe}
    asked = {"onnx": save(tmp_path / "m.onnx", operator), "recipe": given, "place": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(asked)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([FOLDER, str(Path.cwd())])},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_the_api_of_10_builds_keeps_and_reports(tmp_path):
    told = built(tmp_path)
    assert told["version"].startswith("1.4.0")
    assert told["size"] > 100
    assert any("building the engine" in line for line in told["said"])
    assert len(list((tmp_path / "cache").rglob("*.plan"))) == 1


def test_the_parser_of_10_names_the_operator(tmp_path):
    told = built(tmp_path, "Det")
    assert told["code"] == "parse-failed"
    assert "Det" in told["what"]


def test_a_free_dimension_without_a_profile_has_the_builder_s_words(tmp_path):
    told = built(tmp_path, profiles=[])
    assert told["code"] == "build-failed"
    assert "optimization profile" in told["where"]
