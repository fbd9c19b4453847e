"""The agent with a real runtime: checks, benches, is cancelled and killed; as the host's Python, and on 3.8 and 3.13."""

import fcntl
import hashlib
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from platformdirs import user_cache_path

from agent.contract import codec
from agent.contract.errors import DeviceError, IntegrityError, from_wire
from agent.contract.manifest import Tolerance
from agent.contract.report import Report
from agent.store import Store
from tests.agent.remote import Agent, find_python

# 1.19.2 is the last onnxruntime for Python 3.8, 1.24.4 the last numpy.
PACKAGES = {"3.8": ["numpy==1.24.4", "onnxruntime==1.19.2"], "3.13": ["numpy>=2.1", "onnxruntime>=1.20"]}


def python_with_runtime(version, packages=()):
    """That interpreter with numpy and onnxruntime (or these packages), kept in edgepack's cache between test runs."""
    packages = packages or PACKAGES[version]
    python = find_python(version)
    if python is None:
        pytest.skip(f"Python {version} is not installed on this machine")
    key = hashlib.sha256(repr((python, packages)).encode()).hexdigest()[:12]
    folder = user_cache_path("edgepack") / "test-interpreters" / f"{version}-{key}"
    ready = folder / "ready"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:  # tests run in several processes
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
            install = [folder / "bin/python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
            done = subprocess.run([*install, *packages], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            ready.touch()
    return str(folder / "bin/python")


def on_a_device(version):
    return pytest.param(version, marks=[pytest.mark.device, pytest.mark.timeout(900)])


@pytest.fixture(params=["own", on_a_device("3.8"), on_a_device("3.13")])
def device(request, tmp_path):
    own = request.param == "own"
    return Agent(sys.executable if own else python_with_runtime(request.param), tmp_path)


@pytest.fixture
def bundle(device, demo_bundles):
    """The digest of the demo's fp32 bundle, installed."""
    path, digest = demo_bundles("fp32")
    assert device.install(path, digest)["findings"] == []
    return digest


@pytest.fixture
def long_bench(device, bundle):
    """A bench that is measuring, and would for a minute."""
    running = device.job("bench", digest=bundle, seconds=60.0, rounds=1, warmup_seconds=0.1)
    running.until("round 1 of 1")
    yield running
    running.end()


def gone(process):
    """Whether the process ends; a zombie has."""
    for _ in range(500):
        try:
            if Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


def test_check_passes_and_counts_the_nodes(device, bundle):
    told = device.ask("check", digest=bundle)
    assert told["parity"]["verdict"] == "pass"
    assert told["parity"]["outputs"][0]["cosine"] > 0.9999
    assert set(told["placement"]) == {"CPUExecutionProvider"}
    assert told["placement"]["CPUExecutionProvider"] > 3
    assert told["provider"] == "CPUExecutionProvider"
    assert told["version"].count(".") == 2


def test_check_of_an_int8_bundle(device, demo_bundles):
    path, digest = demo_bundles("int8")
    device.install(path, digest)
    told = device.ask("check", digest=digest)
    assert told["parity"]["verdict"] == "pass"
    assert told["parity"]["outputs"][0]["cosine"] > 0.95


def test_check_with_a_tolerance_that_cannot_be_met(device, demo_bundles):
    path, digest = demo_bundles("int8")
    device.install(path, digest)
    told = device.ask("check", digest=digest, tolerance=codec.encode(Tolerance(min_cosine=2.0, max_abs=0.0)))
    assert told["parity"]["verdict"] == "fail"
    assert [output["verdict"] for output in told["parity"]["outputs"]] == ["fail"]


def test_bench_reports_every_sample_and_keeps_the_report(device, bundle):
    told = device.ask("bench", digest=bundle, runs=100, rounds=3, warmup_seconds=0.0, warmup_runs=4, threads=1)
    report = codec.decode(Report, told)
    assert report.bundle == bundle
    assert report.parity.verdict == "pass"
    assert [len(one.samples_ns) for one in report.rounds] == [34, 33, 33]
    assert all(len(one.warmup_ns) == 4 for one in report.rounds)
    assert all(sample > 0 for one in report.rounds for sample in one.samples_ns)
    for one in report.rounds:
        assert one.peak_memory_bytes > one.baseline_memory_bytes > 1 << 20
        assert one.load_ns > 0 < one.first_ns
    assert report.runtime.threads == 1
    assert report.facts.python == platform.python_version() or device.python != sys.executable
    assert device.ask("hello")["kept_results"] == ["job-1"]
    assert device.ask("collect", job="job-1")["result"] == told
    assert device.ask("collect", forget=["job-1"])["kept"] == []


def test_bench_by_time(device, bundle):
    report = codec.decode(Report, device.ask("bench", digest=bundle, seconds=0.3, rounds=2, warmup_seconds=0.05))
    assert [sum(one.samples_ns) >= 0.1e9 for one in report.rounds] == [True, True]


def test_provider_that_is_not_there_is_refused(device, bundle):
    with pytest.raises(DeviceError, match="no provider 'cuda'") as caught:
        device.ask("check", digest=bundle, provider="cuda")
    assert caught.value.code == "no-provider"
    assert "CPUExecutionProvider" in caught.value.expected


def test_model_that_rotted_on_the_device_is_not_run(device, bundle):
    model = Store(str(device.root)).get(bundle) / "model/model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"\0")
    with pytest.raises(IntegrityError, match=r"model/model\.onnx has changed"):
        device.ask("bench", digest=bundle, runs=1)


def test_cancel_ends_the_measurement_and_keeps_nothing(device, long_bench):
    child = long_bench.child()
    long_bench.say({"cancel": True})
    status, last = long_bench.finish()
    assert status == 130
    assert last["type"] != "result"
    assert gone(child)
    assert device.ask("hello")["kept_results"] == []


def test_words_that_are_no_cancel_are_passed_over(device, bundle):
    running = device.job("bench", digest=bundle, seconds=0.2, rounds=1, warmup_seconds=0.0)
    running.say({"cancel": False})
    running.say(["cancel"])
    running.process.stdin.write(b"cancel\n")
    status, last = running.finish()
    assert (status, last["type"]) == (0, "result")


def test_killed_measurement_says_what_it_means(long_bench):
    os.kill(long_bench.child(), signal.SIGKILL)
    status, last = long_bench.finish()
    error = from_wire(last["error"])
    assert status == DeviceError.exit_code
    assert error.code == "child-sigkill"
    assert "out of memory" in error.what


@pytest.mark.parametrize("name", ["SIGILL", "SIGSEGV"])
def test_crash_of_the_runtime_is_told_by_its_name(long_bench, name):
    os.kill(long_bench.child(), getattr(signal, name))
    _, last = long_bench.finish()
    assert last["error"]["code"] == f"child-{name.lower()}"
    assert last["error"]["fix"]


def test_killed_agent_takes_its_measurement_along(device, long_bench):
    child = long_bench.child()
    long_bench.process.kill()
    assert gone(child)
    assert device.ask("hello")["kept_results"] == []


def test_host_that_hangs_up_loses_nothing(device, bundle):
    running = device.job("bench", digest=bundle, runs=20, rounds=1, warmup_seconds=0.0)
    running.until("golden")
    running.process.stdout.close()
    running.process.stdin.close()
    assert running.process.wait(60) == 0
    running.process.stderr.close()
    assert device.ask("hello")["kept_results"] == ["job-1"]
    assert device.ask("collect", job="job-1")["result"]["bundle"] == bundle
