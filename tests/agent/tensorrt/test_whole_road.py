"""Host, agent, children, cache and report together. Above CUDA stands the stand-in, below it the C stub: nothing computes,
so the golden check must fail, and the report must say so. The parts' lengths are checked, never their values.
"""

import shutil
import site
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import packager
from agent.contract import codec
from agent.contract.errors import DeviceError
from agent.contract.job import BenchOptions
from agent.contract.report import Report
from packager.device.local import LocalTransport
from packager.device.session import AgentSession
from packager.pipeline import build

ROOT = Path(__file__).parents[3]
DEMO = Path(packager.__file__).parent / "demo_data"
MODULE = """
    import sys
    sys.path.insert(0, {root!r})
    from tests.agent.tensorrt.standin import StandIn
    trt = StandIn({version!r})
    _names = ["image", "logits"]
    trt.answers = {{
        "Builder.build_serialized_network": b"plan",
        "Runtime.deserialize_cuda_engine": lambda plan: trt.ICudaEngine() if bytes(plan) == b"plan" else None,
        "ICudaEngine.num_io_tensors": 2,
        "ICudaEngine.get_tensor_name": lambda index: _names[index],
        "ICudaEngine.get_tensor_mode": lambda n: trt.TensorIOMode.INPUT if n == "image" else trt.TensorIOMode.OUTPUT,
        "ICudaEngine.get_tensor_dtype": lambda _: trt.DataType.FLOAT,
        "ICudaEngine.is_shape_inference_io": False,
        "IExecutionContext.get_tensor_shape": lambda _: (1, 10),
        "ICudaEngine.create_execution_context": lambda: trt.IExecutionContext(),
        "ICudaEngine.create_engine_inspector": lambda: trt.EngineInspector(),
        "EngineInspector.get_engine_information": '{{"Layers": ["one"]}}',
    }}
    sys.modules["tensorrt"] = trt
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    path = tmp_path_factory.mktemp("bundle") / "m.edgepack"
    return build(str(DEMO / "fashion-cnn.onnx"), "jetson-orin", runtime="tensorrt", recipe="fp32", output=path)


@pytest.fixture
def session(tmp_path, monkeypatch, stub_path):
    """An interpreter that has a `tensorrt`, and a libcudart that is the stub."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "env")], check=True)
    packages = next((tmp_path / "env" / "lib").glob("python*")) / "site-packages"
    # All that this interpreter finds: a development environment may lend its packages from another.
    found = dict.fromkeys([*site.getsitepackages(), *(one for one in sys.path if one.endswith("site-packages"))])
    (packages / "real.pth").write_text("\n".join(found) + "\n")
    (packages / "tensorrt.py").write_text(textwrap.dedent(MODULE.format(root=str(ROOT), version="10.3")))
    (packages / "tensorrt-10.3.0.dist-info").mkdir()
    metadata = packages / "tensorrt-10.3.0.dist-info" / "METADATA"
    metadata.write_text("Metadata-Version: 2.1\nName: tensorrt\nVersion: 10.3.0\n")
    (tmp_path / "cuda").mkdir()
    shutil.copy(stub_path, tmp_path / "cuda" / "libcudart.so.13")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path / "cuda"))
    return AgentSession(LocalTransport(), python=str(tmp_path / "env" / "bin" / "python"), root=str(tmp_path / "root"))


def push(session, built, tmp_path):
    (tmp_path / "root" / "incoming").mkdir(parents=True, exist_ok=True)
    session.transport.put(built.bundle, str(tmp_path / "root" / "incoming" / "m.edgepack"))
    session.call("install", {"file": "m.edgepack", "digest": built.digest})


def bench(session, built):
    asked = BenchOptions(digest=built.digest, runs=6, rounds=2, warmup_runs=1, warmup_seconds=0.0)
    return codec.decode(Report, session.call("bench", codec.encode(asked)))


def engines(tmp_path):
    return sorted(path.name for path in (tmp_path / "root" / "cache").rglob("*.*") if path.is_file())


def test_build_cache_check_and_parts_through_the_real_agent(session, bundle, tmp_path):
    push(session, bundle, tmp_path)
    report = bench(session, bundle)
    codes = [finding.code for finding in report.findings]
    assert report.parity.verdict == "fail"
    assert {"parity", "engine-built", "tensorrt-preflight"} <= set(codes)
    assert report.runtime.placement == {"tensorrt-other": 1}
    assert (report.runtime.version, report.runtime.provider) == ("10.3.0", "tensorrt")
    assert [len(one.samples_ns) for one in report.rounds] == [3, 3]
    for one in report.rounds:
        assert {name: len(values) for name, values in one.parts_ns.items()} == {"h2d": 3, "compute": 3, "d2h": 3}
    assert len(engines(tmp_path)) == 2
    again = bench(session, bundle)
    assert "engine-built" not in [finding.code for finding in again.findings]


def test_a_corrupt_engine_is_built_again(session, bundle, tmp_path):
    push(session, bundle, tmp_path)
    bench(session, bundle)
    plan = next((tmp_path / "root" / "cache").rglob("*.plan"))
    plan.write_bytes(b"rust")
    assert "engine-built" in [finding.code for finding in bench(session, bundle).findings]
    assert next((tmp_path / "root" / "cache").rglob("*.plan")).read_bytes() == b"plan"


def test_an_engine_of_another_tensorrt_is_built_again_and_said(session, bundle, tmp_path):
    push(session, bundle, tmp_path)
    bench(session, bundle)
    record = next((tmp_path / "root" / "cache").rglob("*.json"))
    plan = next((tmp_path / "root" / "cache").rglob("*.plan"))
    plan.write_bytes(b"alien")
    import hashlib
    import json

    told = {**json.loads(record.read_text()), "sha256": hashlib.sha256(b"alien").hexdigest()}
    record.write_text(json.dumps(told))
    assert "engine-rebuilt" in [finding.code for finding in bench(session, bundle).findings]


def test_a_device_without_a_driver_is_told_so(session, bundle, tmp_path):
    push(session, bundle, tmp_path)
    (tmp_path / "cuda" / "libcudart.so.13").unlink()
    with pytest.raises(DeviceError) as caught:
        bench(session, bundle)
    assert caught.value.code in {"no-cuda", "no-gpu"}
    assert engines(tmp_path) == []


def test_removing_the_bundle_removes_its_engines(session, bundle, tmp_path):
    push(session, bundle, tmp_path)
    bench(session, bundle)
    assert engines(tmp_path)
    assert session.call("remove", {"digest": bundle.digest})["freed_bytes"] > bundle.size_bytes / 2
    assert engines(tmp_path) == []


def test_asking_for_the_processor_is_refused(session, bundle, tmp_path):
    push(session, bundle, tmp_path)
    with pytest.raises(DeviceError, match="runs on the GPU"):
        session.call("bench", codec.encode(BenchOptions(digest=bundle.digest, provider="cpu")))
    assert engines(tmp_path) == []


def test_another_major_is_refused_before_anything_runs(session, bundle, tmp_path):
    push(session, bundle, tmp_path)
    info = next((tmp_path / "env" / "lib").rglob("tensorrt-10.3.0.dist-info"))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tensorrt\nVersion: 8.6.2\n")
    with pytest.raises(DeviceError, match=r"tensorrt 8\.6\.2 is on the device") as caught:
        bench(session, bundle)
    assert caught.value.expected == ">= 10.0, < 11"
    assert engines(tmp_path) == []
