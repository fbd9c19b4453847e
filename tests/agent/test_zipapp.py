"""The whole agent, shipped and started as on a device, under the oldest, the host's and the newest Python: no numpy there."""

import json

import pytest

from agent.contract import codec
from agent.contract.errors import ContractError, DeviceError, IntegrityError, UsageError
from agent.contract.facts import DoctorReport
from agent.contract.manifest import RuntimeNeed
from agent.store import Store
from agent.version import __version__
from tests.agent.bundles import manifest, write_bundle

VERSIONS = ["3.8", "3.11", "3.13"]


@pytest.fixture(params=VERSIONS)
def device(request, agent_with):
    return agent_with(request.param)


@pytest.fixture
def package(tmp_path):
    path = tmp_path / "small.edgepack"
    return path, write_bundle(path)


def test_hello(device, request):
    told = device.ask("hello")
    assert told["agent"] == __version__
    assert told["python"].startswith(request.node.callspec.params["device"])
    assert told["root"] == str(device.root)
    assert told["bundles"] == told["kept_results"] == []


def test_install_list_and_remove(device, package):
    path, digest = package
    told = device.install(path, digest)
    assert told["name"] == "small"
    assert [finding["code"] for finding in told["findings"]] == ["runtime-missing"]
    assert list((device.root / "incoming").iterdir()) == []
    (row,) = device.ask("list")["bundles"]
    assert (row["digest"], row["name"]) == (digest, "small")
    assert device.ask("hello")["bundles"] == [digest]
    assert device.ask("remove", digest=digest)["freed_bytes"] > 0
    assert device.ask("list")["bundles"] == []


def test_broken_bundle_is_refused_and_leaves_nothing(device, package):
    path, digest = package
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(IntegrityError, match="not whole"):
        device.install(path, digest)
    assert list((device.root / "incoming").iterdir()) == []
    assert device.ask("list")["bundles"] == []


def test_bundle_for_another_processor_is_refused_before_anything_runs(device, tmp_path):
    need = RuntimeNeed("onnxruntime", "1.16.0", cpu_features=["telepathy"])
    path = tmp_path / "other.edgepack"
    digest = write_bundle(path, manifest(runtime=need))
    with pytest.raises(DeviceError, match="telepathy") as caught:
        device.install(path, digest)
    assert caught.value.code == "cpu-features"
    assert "linux-x86-64" in caught.value.expected
    assert device.ask("list")["bundles"] == []


@pytest.mark.parametrize("verb", ["check", "bench"])
def test_missing_numpy_names_the_command_that_brings_it(device, package, verb):
    device.install(*package)
    with pytest.raises(DeviceError, match="numpy is not installed") as caught:
        device.ask(verb, digest=package[1])
    assert caught.value.code == "no-numpy"
    assert "pip install" in caught.value.fix


@pytest.mark.parametrize("verb", ["check", "bench", "remove"])
def test_bundle_that_is_not_there(device, verb):
    with pytest.raises(DeviceError, match="not on this device"):
        device.ask(verb, digest="sha256:" + "0" * 64)


def test_doctor_says_what_the_device_is_and_lacks(device):
    report = codec.decode(DoctorReport, device.ask("doctor", host_unix=0.0))
    codes = {finding.code for finding in report.findings}
    assert {"no-numpy", "clock"} <= codes
    assert all(finding.advice for finding in report.findings)
    assert report.facts.cpu_features
    assert report.facts.python_path in {one["path"] for one in report.interpreters}


def test_wrong_verb(device):
    status, last = device.raw(b"{}\n", "benhc")
    assert (status, last["error"]["kind"]) == (UsageError.exit_code, "UsageError")
    assert "did you mean 'bench'?" in last["error"]["what"]
    with pytest.raises(UsageError, match="unknown verb 'nope'"):
        device.ask("nope")


@pytest.mark.parametrize("line", [b"", b"\n", b"{\n", b"hello\n", b"\xff\xfe\n", b"[" * 100_000 + b"\n"])
def test_bad_json(device, line):
    status, last = device.raw(line)
    assert status == UsageError.exit_code
    assert "not one line of JSON" in last["error"]["what"]


@pytest.mark.parametrize("document", [[], None, 3, {}, {"schema": "edgepack.job/1", "id": "1"}])
def test_json_that_is_no_job(device, document):
    status, last = device.raw(json.dumps(document).encode() + b"\n")
    assert (status, last["error"]["kind"]) == (ContractError.exit_code, "ContractError")


def test_job_from_a_newer_host(device):
    status, last = device.raw(b'{"schema": "edgepack.job/2", "id": "1", "verb": "hello"}\n')
    assert (status, last["error"]["code"]) == (2, "schema")
    assert "update edgepack" in last["error"]["fix"]


def test_unknown_option_names_the_nearest(device):
    with pytest.raises(ContractError, match=r"\$\.arguments: unknown key 'thread' \(did you mean 'threads'\?\)"):
        device.ask("bench", digest="sha256:" + "0" * 64, thread=1)


def test_result_that_was_never_fetched_is_collected(device):
    Store(str(device.root)).keep_result("job-7", {"n": 7})
    assert device.ask("collect")["kept"] == ["job-7"]
    assert device.ask("collect", job="job-7")["result"] == {"n": 7}
    assert device.ask("collect", forget=["job-7"]) == {"kept": [], "result": None}


def test_leaves_only_its_own_folder(device):
    device.ask("hello")
    assert {path.name for path in device.home.iterdir()} == {".edgepack", device.zip.name}


@pytest.mark.parametrize("version", ["3.6", "3.7"])
def test_old_python_says_which_is_needed(agent_with, version):
    status, last = agent_with(version).raw(b"", "hello")
    assert status == DeviceError.exit_code
    assert last["error"]["code"] == "old-python"
    assert last["error"]["what"] == f"the device's Python is {version}"
    assert "--python" in last["error"]["fix"]


def test_job_that_is_too_large(agent_with):
    status, last = agent_with("3.11").raw(b'"' + b"x" * (17 << 20))
    assert status == UsageError.exit_code
    assert "larger than" in last["error"]["what"]


def test_shipped_file_that_is_damaged_says_nothing_as_if_it_were_a_result(agent_with):
    agent = agent_with("3.11")
    data = agent.zip.read_bytes()
    agent.zip.write_bytes(data[: len(data) // 2])
    running = agent.job("hello")
    out, _ = running.process.communicate(timeout=60)
    assert (out, running.process.returncode != 0) == (b"", True)


def test_file_where_its_folder_should_be(agent_with, tmp_path):
    agent = agent_with("3.11")
    agent.root = tmp_path / "file" / "edgepack"
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(DeviceError, match="cannot be one") as caught:
        agent.ask("hello")
    assert "--root" in caught.value.fix
