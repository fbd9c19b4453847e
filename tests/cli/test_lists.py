"""edgepack profiles, runtimes, devices, results: lists for people and for machines."""

import dataclasses

import pytest

from agent.contract.facts import DeviceFacts
from agent.contract.finding import Finding
from agent.contract.report import OutputParity, Parity, ProbeReading, Report, Round, RuntimeUsed
from packager.results.store import ResultStore


def test_profiles_list(edgepack):
    document = edgepack("profiles", "list", "--json").json
    by_name = {one["name"]: one for one in document}
    assert len(by_name) >= 20
    assert "onnxruntime" in by_name["raspberry-pi-5"]["buildable"]
    assert "onnxruntime" not in by_name["cortex-m4"]["buildable"]
    told = edgepack("profiles", "list")
    assert told.status == 0
    assert all(name in told.out for name in by_name)


def test_profiles_show(edgepack):
    document = edgepack("profiles", "show", "jetson-orin", "--json").json
    assert document["gpu"]["compute_capability"] == "8.7"
    assert document["memory"]["ram_bytes"] > 1e9
    assert "compute_capability: 8.7" in edgepack("profiles", "show", "jetson-orin").out
    done = edgepack("profiles", "show", "jetson-orion")
    assert (done.status, "did you mean" in done.err, done.out) == (2, True, "")


def test_runtimes_list(edgepack):
    (row,) = [one for one in edgepack("runtimes", "list", "--json").json if one["name"] == "onnxruntime"]
    assert row["recipes"] == ["fp32", "fp16", "int8-dynamic", "int8"]
    assert set(row["sources"]) >= {"onnx", "pt2", "torch", "torchscript"}
    assert "onnxruntime" in edgepack("runtimes", "list").out


def test_devices_are_registered_listed_and_forgotten(edgepack):
    assert edgepack("devices", "list", "--json").json == []
    assert edgepack("devices", "add", "kitchen", "pi@10.0.0.5:2222", "--python", "/opt/rt/bin/python").status == 0
    (row,) = edgepack("devices", "list", "--json").json
    assert (row["name"], row["address"], row["python"]) == ("kitchen", "pi@10.0.0.5:2222", "/opt/rt/bin/python")
    assert "kitchen" in edgepack("devices", "list").out
    assert edgepack("devices", "add", "kitchen", "pi@10.0.0.6").status == 2
    assert edgepack("devices", "add", "kitchen", "pi@10.0.0.6", "--replace").status == 0
    assert edgepack("devices", "remove", "kitchen").status == 0
    assert edgepack("devices", "remove", "kitchen").status == 2


@pytest.fixture
def stored(place):
    """Two reports in the user's store; their numbers."""
    facts = DeviceFacts("kitchen", "Raspberry Pi 5", "aarch64", "6.6", "Debian 12", "3.11.2", "/usr/bin/python3",
                        "glibc 2.36", "1.26.4", [], "Cortex-A76", 4, ["neon", "dotprod"], 8 << 30, 6 << 30, None, "/home/pi",
                        1.7e9)  # fmt: skip
    one = Round(5_000_000, 3_000_000, [2_000_000], [1_000_000, 2_000_000, 3_000_000], 40_000_000, 10_000_000,
                ProbeReading(), ProbeReading())  # fmt: skip
    report = Report(
        job="job-1",
        bundle="sha256:" + "a" * 64,
        name="tiny",
        target="raspberry-pi-5",
        recipe="int8",
        runtime=RuntimeUsed("onnxruntime", "1.32.0", "CPUExecutionProvider", 1, {"CPUExecutionProvider": 6}),
        parity=Parity("pass", 4, [OutputParity("scores", 0.998, 0.01, 1.0, "pass")]),
        rounds=[one],
        facts=facts,
        model_bytes=1000,
        bundle_bytes=2000,
        source_bytes=4000,
        started_unix=1.7e9,
        findings=[Finding("few-samples", "warning", "three samples say little", "measure longer")],
    )
    store = ResultStore()
    return [store.add(dataclasses.replace(report, job=f"job-{n}"), "pi@kitchen") for n in (1, 2)]


def test_results_list(edgepack, stored):
    document = edgepack("results", "list", "--json").json
    assert [one["run"] for one in document] == stored[::-1]
    assert document[0]["latency"]["p50_ms"] == 2.0
    assert len(edgepack("results", "list", "-n", "1", "--json").json) == 1
    assert "pi@kitchen" in edgepack("results", "list").out


def test_results_show(edgepack, stored):
    document = edgepack("results", "show", stored[0], "--json").json
    assert document["latency"]["samples_ns"] == [1_000_000, 2_000_000, 3_000_000]
    assert document["latency"]["p99_ms"] is None, "three samples have no 99th percentile"
    assert document["memory_above_interpreter_bytes"] == 30_000_000
    told = edgepack("results", "show", stored[0])
    assert "three samples say little" in told.out
    assert "measure longer" in told.out


def test_results_are_empty_before_the_first(edgepack):
    assert edgepack("results", "list", "--json").json == []
    done = edgepack("results", "show", 7)
    assert (done.status, "there is no run 7" in done.err) == (2, True)


def test_results_that_are_no_database(edgepack, stored, place):
    from packager.results.store import default_path

    default_path().write_bytes(b"this is no database" * 100)
    done = edgepack("results", "list")
    assert (done.status, "cannot be used" in done.err) == (2, True)
