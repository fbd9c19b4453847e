"""The doctor's findings: what the device lacks, each with the exact fix, and silence when it lacks nothing."""

import dataclasses
import sys

import pytest

from agent.contract.facts import DeviceFacts, RuntimeFacts
from agent.verbs import doctor

HEALTHY = DeviceFacts(
    hostname="kitchen",
    model="Raspberry Pi 5",
    machine="aarch64",
    kernel="6.6",
    os="Debian 12",
    python="3.11.2",
    python_path="/usr/bin/python3",
    libc="glibc-2.36",
    numpy="2.1.0",
    runtimes=[RuntimeFacts("onnxruntime", "1.20.0")],
    cpu_model="Cortex-A76",
    cpu_cores=4,
    cpu_features=["neon"],
    memory_total=8 << 30,
    memory_available=4 << 30,
    disk_free=9 << 30,
    root="/home/pi/.edgepack",
    clock_unix=1.7e9,
)


def codes(host_unix=1.7e9, interpreters=(), **changes):
    found = doctor.diagnose(dataclasses.replace(HEALTHY, **changes), host_unix, list(interpreters))
    assert all(finding.advice for finding in found)
    return {finding.code: finding for finding in found}


def test_healthy_device_has_no_findings():
    assert codes() == {}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"numpy": None}, "no-numpy"),
        ({"runtimes": []}, "no-runtime"),
        ({"runtimes": [RuntimeFacts("onnxruntime", None)]}, "no-runtime"),
        ({"libc": "glibc-2.27"}, "old-glibc"),
        ({"disk_free": 100 << 20}, "low-disk"),
        ({"memory_available": 64 << 20}, "low-memory"),
        ({"clock_unix": 0.0}, "clock"),
        ({"clock_unix": 2.0e9}, "clock"),
    ],
)
def test_each_lack_by_its_name(changes, code):
    assert list(codes(**changes)) == [code]


def test_what_cannot_be_read_is_no_finding():
    assert codes(disk_free=None, memory_available=None, libc="-") == {}


def test_musl_is_not_old_glibc():
    assert "old-glibc" not in codes(libc="libc-1.2")


def test_missing_packages_name_the_command():
    finding = codes(numpy=None, runtimes=[])["no-numpy"]
    assert "numpy onnxruntime" in finding.advice
    assert HEALTHY.python_path in finding.message


def test_interpreter_that_has_them_is_offered():
    better = {"path": "/opt/ml/bin/python3", "version": "3.11.2", "has": "numpy onnxruntime"}
    assert "--python /opt/ml/bin/python3" in codes(numpy=None, interpreters=[better])["no-numpy"].advice


def test_clock_that_is_years_behind_says_how_far():
    assert "19676 days behind" in codes(clock_unix=1.7e9 - 19676 * 86400)["clock"].message


def test_interpreters_are_found_and_asked(tmp_path, monkeypatch):
    broken = tmp_path / "python3"
    broken.write_text("#!/bin/sh\necho broken pipe dream >&2\nexit 3\n", encoding="utf-8")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(doctor, "_LOOK_IN", ())
    found = {one["path"]: one for one in doctor.find_interpreters()}
    assert found[sys.executable]["version"].startswith("3.")
    assert {"numpy", "onnxruntime"} <= set(found[sys.executable]["has"].split())
    assert found[str(broken)]["error"] == "it ended with status 3: broken pipe dream"
