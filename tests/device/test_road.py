"""The road of a bundle: pushed, checked, measured, reported, over a real SSH server and through the command line."""

from __future__ import annotations

import json
import os
import signal
import threading

import pytest

from agent.contract.archive import BundleReader
from agent.contract.errors import TransientDeviceError
from packager.device.device import Device
from tests.device.road import agents, digest_of, finish, half_written, kill, read_until, wait_for

QUICK = ("--seconds", "0.2", "--rounds", "2")
LONG = ("--seconds", "60", "--rounds", "1")


def kept(device):
    """The results that the device has not been told to forget."""
    return [path.name for path in (device.root / "results").glob("*")]


def gone(device):
    return not agents(device.root) and not agents(device.root, child=True)


def test_push_then_already_there(board, edgepack, bundle):
    device = board("kitchen")
    (first,) = edgepack.json("push", bundle, "kitchen")["pushed"]
    assert (first["device"], first["bundle"], first["already_there"]) == ("kitchen", digest_of(bundle), False)
    assert 0 < first["bytes_sent"] <= bundle.stat().st_size
    (second,) = edgepack.json("push", bundle, "kitchen")["pushed"]
    assert (second["bundle"], second["already_there"], second["bytes_sent"]) == (first["bundle"], True, 0)
    assert (device.root / "bundles" / digest_of(bundle)[7:] / "manifest.json").exists()
    assert half_written(device.root) == []
    assert device.root.stat().st_mode & 0o777 == 0o700


def test_bench_reports_what_the_interface_promises_and_stores_it(board, edgepack, bundle):
    device = board("kitchen")
    document = edgepack.json("bench", bundle, "kitchen", "--threads", "1", "--runs", "120", "--rounds", "2")
    (report,) = document["reports"]
    assert document["errors"] == []
    assert (report["device"], report["bundle"]) == ("kitchen", digest_of(bundle))
    latency = report["latency"]
    assert latency["n"] == len(latency["samples_ns"]) == 120
    assert 0 < latency["min_ms"] <= latency["p50_ms"] <= latency["p95_ms"] <= latency["p99_ms"]
    assert latency["mean_ms"] > 0
    assert latency["std_ms"] > 0
    assert report["load_ms"] > 0
    assert report["peak_memory_bytes"] > report["memory_above_interpreter_bytes"] > 1 << 20
    assert report["parity"]["verdict"] == "pass"
    assert [output["verdict"] for output in report["parity"]["outputs"]] == ["pass"]
    assert report["runtime"]["name"] == "onnxruntime"
    assert report["runtime"]["threads"] == 1
    assert sum(report["runtime"]["placement"].values()) > 0
    assert isinstance(report["findings"], list)
    assert [one["n"] for one in report["rounds"]] == [60, 60]
    assert all(one["before"]["load_1min"] is not None for one in report["rounds"])
    shown = edgepack.json("results", "show", report["run"])
    assert shown["latency"] == latency
    (row,) = edgepack.json("results", "list")
    assert (row["run"], row["device"]) == (report["run"], "kitchen")
    assert kept(device) == []


def test_bench_table_names_the_device_and_every_finding(board, edgepack, bundle):
    board("kitchen")
    done = edgepack("bench", bundle, "kitchen", "--runs", "7", "--rounds", "1")
    assert "kitchen" in done.stdout
    assert "7 samples are too few for p90, p95, p99" in done.stdout
    assert "measuring" not in done.stdout  # talk goes to stderr


def test_two_devices_at_once(board, edgepack, bundle):
    names = ("kitchen", "garage")
    devices = [board(name) for name in names]
    pushed = edgepack.json("push", bundle, *names)["pushed"]
    assert {one["device"] for one in pushed} == set(names)
    reports = edgepack.json("bench", bundle, *names, *QUICK)["reports"]
    assert [one["device"] for one in reports] == list(names)
    assert len({one["device_facts"]["root"] for one in reports}) == 2
    assert all(one["parity"]["verdict"] == "pass" for one in reports)
    assert len(edgepack.json("results", "list")) == 2
    assert all(half_written(device.root) == [] for device in devices)


def test_one_device_of_two_fails_and_the_other_reports(board, edgepack, bundle):
    board("kitchen")
    board("garage").stop()
    document = edgepack.json("bench", bundle, "garage", "kitchen", *QUICK, code=5)
    assert [one["device"] for one in document["reports"]] == ["kitchen"]
    (error,) = document["errors"]
    assert (error["device"], error["code"], error["exit_code"]) == ("garage", "unreachable", 5)


def test_list_and_remove_bundles(board, edgepack, bundle):
    device = board("kitchen")
    assert edgepack.json("devices", "list-bundles", "kitchen") == []
    edgepack("push", bundle, "kitchen")
    (row,) = edgepack.json("devices", "list-bundles", "kitchen")
    assert (row["digest"], row["runtime"]) == (digest_of(bundle), "onnxruntime")
    wrong = edgepack("devices", "remove-bundle", "kitchen", "sha256:ffff", code=4)
    assert digest_of(bundle) in wrong.stderr
    removed = edgepack.json("devices", "remove-bundle", "kitchen", row["digest"][:20])
    assert removed["freed_bytes"] > 10000
    assert edgepack.json("devices", "list-bundles", "kitchen") == []
    assert list((device.root / "bundles").iterdir()) == []


def test_doctor_says_what_the_device_is(board, edgepack):
    device = board("kitchen")
    report = edgepack.json("devices", "doctor", "kitchen")
    facts = report["facts"]
    assert facts["root"] == str(device.root)
    assert facts["memory_total"] > facts["memory_available"] > 0
    assert facts["numpy"]
    assert next(one["version"] for one in facts["runtimes"] if one["name"] == "onnxruntime")
    assert [one for one in report["findings"] if one["level"] == "error"] == []
    assert any(one["path"] == facts["python_path"] for one in report["interpreters"])
    assert facts["cpu_model"] in edgepack("devices", "doctor", "kitchen").stdout


def test_link_cut_in_mid_bench_and_the_report_arrives_by_itself(board, edgepack, bundle):
    device = board("kitchen")
    process = edgepack.start("bench", bundle, "kitchen", "--seconds", "4", "--rounds", "1", "--json")
    read_until(process, "round 1 of 1")
    device.cut_sessions()
    code, out, talk = finish(process)
    assert code == 0, talk
    assert "the link was lost: connecting again for the result" in talk
    (report,) = json.loads(out)["reports"]
    assert report["parity"]["verdict"] == "pass"
    assert edgepack.json("results", "show", report["run"])["latency"]["n"] == report["latency"]["n"]
    assert kept(device) == []


def test_lost_device_says_how_to_fetch_the_report_later(board, edgepack, bundle):
    device = board("kitchen")

    def cut(message):
        if "round 1" in message:
            device.cut_sessions()
            device._process.kill()  # no way back: the server is gone, the agent works on
            device._process.wait()

    with Device("kitchen", progress=cut) as connected, pytest.raises(TransientDeviceError) as caught:
        connected.bench(bundle, seconds=1.0, rounds=1, reconnect_seconds=0.5)
    assert (caught.value.code, caught.value.exit_code) == ("link-lost", 5)
    assert "edgepack results collect DEVICE" in caught.value.fix
    wait_for(lambda: kept(device) and gone(device), "the result on the device")
    device.start()
    (run,) = edgepack.json("results", "collect", "kitchen")["runs"]
    assert edgepack.json("results", "show", run)["parity"]["verdict"] == "pass"
    assert kept(device) == []


def test_host_killed_in_mid_bench_and_the_report_is_collected(board, edgepack, bundle):
    device = board("kitchen")
    process = edgepack.start("bench", bundle, "kitchen", "--seconds", "2", "--rounds", "1")
    read_until(process, "round 1 of 1")
    process.kill()
    finish(process)
    wait_for(lambda: kept(device) and gone(device), "the result on the device")
    doctor = edgepack.json("devices", "doctor", "kitchen")
    assert "kept-results" in [one["code"] for one in doctor["findings"]]
    (run,) = edgepack.json("results", "collect", "kitchen")["runs"]
    assert edgepack.json("results", "show", run)["bundle"] == digest_of(bundle)
    assert edgepack.json("results", "collect", "kitchen")["runs"] == []
    assert kept(device) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_in_mid_bench_leaves_nothing_running(board, edgepack, bundle, number):
    device = board("kitchen")
    process = edgepack.start("bench", bundle, "kitchen", *LONG)
    read_until(process, "round 1 of 1")
    process.send_signal(number)
    code, _, talk = finish(process)
    assert code == 130
    assert "interrupted" in talk
    wait_for(lambda: gone(device), "every process to end", 10)
    assert half_written(device.root) == []
    assert kept(device) == []
    assert edgepack.json("bench", bundle, "kitchen", *QUICK)["reports"]


def test_interrupt_in_mid_upload_leaves_nothing_half_written(board, edgepack, big_bundle):
    device = board("kitchen")
    process = edgepack.start("push", big_bundle, "kitchen")
    incoming = device.root / "incoming"
    wait_for(lambda: incoming.is_dir() and any(incoming.glob("*.part")), "the first bytes of the upload")
    process.send_signal(signal.SIGINT)
    code, _, _ = finish(process)
    assert code == 130
    wait_for(lambda: half_written(device.root) == [], "the temporary file to go", 10)


def test_a_measurement_is_interrupted_from_another_thread(board, edgepack, bundle):
    device = board("kitchen")
    edgepack("push", bundle, "kitchen")
    connected, seen = Device("kitchen"), []

    def interrupt(message):
        if "round 1" in message:
            threading.Thread(target=connected.interrupt).start()

    connected.progress = interrupt

    def measure():
        try:
            connected.bench(bundle, seconds=60.0, rounds=1)
        except KeyboardInterrupt as error:
            seen.append(error)

    worker = threading.Thread(target=measure)
    worker.start()
    worker.join(60)
    assert seen
    wait_for(lambda: gone(device), "every process to end", 10)
    connected.close()


def test_agent_killed_in_mid_bench(board, edgepack, bundle):
    device = board("kitchen")
    process = edgepack.start("bench", bundle, "kitchen", *LONG)
    read_until(process, "round 1 of 1")
    for pid in agents(device.root):
        kill(pid)
    code, out, talk = finish(process)
    assert (code, out) == (4, "")
    assert "the agent was killed by SIGKILL before it answered" in talk
    assert "ran out of memory" in talk
    wait_for(lambda: gone(device), "the measuring process to end with its agent", 10)


def test_measuring_process_killed_in_mid_bench(board, edgepack, bundle):
    device = board("kitchen")
    process = edgepack.start("bench", bundle, "kitchen", *LONG)
    read_until(process, "round 1 of 1")
    for pid in wait_for(lambda: agents(device.root, child=True), "the measuring process"):
        kill(pid)
    code, _, talk = finish(process)
    assert code == 4
    assert (
        "the measuring process died of SIGKILL: the kernel killed it: very likely the device ran out of memory" in talk
    )
    assert gone(device)
    assert kept(device) == []


def test_power_cut_just_before_the_last_rename(board, edgepack, bundle):
    """The file was whole and read-only already: its name alone was still that of a part."""
    device = board("kitchen")
    edgepack("push", bundle, "kitchen")
    edgepack("devices", "prune", "kitchen", "--keep", "0")
    with BundleReader(bundle) as reader:
        reader.extract(device.root / "open")
        entries = reader.manifest.files
    owner = device.root.stat()
    for name, entry in entries.items():
        part = device.root / "incoming" / f"{entry.sha256}.part"
        (device.root / "open" / name).rename(part)
        os.chown(part, owner.st_uid, owner.st_gid)
        part.chmod(0o444)
    pushed = edgepack.json("push", bundle, "kitchen")["pushed"][0]
    assert pushed["bytes_sent"] < 100  # frames without data
    assert half_written(device.root) == []


def test_two_pushes_of_one_bundle_at_once(board, edgepack, big_bundle):
    device = board("kitchen")
    both = [edgepack.start("push", big_bundle, "kitchen", "--json") for _ in range(2)]
    results = [finish(process) for process in both]
    assert [code for code, _, _ in results] == [0, 0], results
    assert {json.loads(out)["pushed"][0]["bundle"] for _, out, _ in results} == {digest_of(big_bundle)}
    assert [path.name for path in (device.root / "bundles").iterdir()] == [digest_of(big_bundle)[7:]]
    assert half_written(device.root) == []


def test_device_whose_copy_was_damaged_is_not_measured(board, edgepack, bundle):
    device = board("kitchen")
    edgepack("push", bundle, "kitchen")
    model = next((device.root / "bundles").glob("*/model/*.onnx"))
    model.write_bytes(model.read_bytes()[:-1] + b"?")
    done = edgepack("bench", bundle, "kitchen", *QUICK, code=7)
    assert "has changed" in done.stderr
    assert "edgepack devices remove-bundle" in done.stderr


def test_interrupt_in_mid_bench_on_this_machine(edgepack, bundle):
    root = edgepack.home / ".edgepack"
    process = edgepack.start("bench", bundle, "local", *LONG)
    read_until(process, "round 1 of 1")
    process.send_signal(signal.SIGINT)
    code, _, _ = finish(process)
    assert code == 130
    wait_for(lambda: not agents(root) and not agents(root, child=True), "every process to end", 10)
    assert half_written(root) == []
    assert list((root / "results").iterdir()) == []


def test_interrupt_of_an_upload_from_another_thread(board, big_bundle):
    device = board("kitchen")
    connected = Device("kitchen")
    with pytest.raises(KeyboardInterrupt):
        connected.push(big_bundle, sent=lambda _: connected.interrupt())
    connected.close()
    wait_for(lambda: half_written(device.root) == [], "the temporary file to go", 10)
    with Device("kitchen") as again:
        assert again.push(big_bundle)["already_there"] is False


def test_interrupt_in_mid_bench_on_two_devices(board, edgepack, bundle):
    devices = [board(name) for name in ("kitchen", "garage")]
    process = edgepack.start("bench", bundle, "kitchen", "garage", *LONG)
    read_until(process, "kitchen: round 1 of 1")
    process.send_signal(signal.SIGINT)
    code, _, _ = finish(process)
    assert code == 130
    for device in devices:
        wait_for(lambda device=device: gone(device), "every process to end", 10)
        assert half_written(device.root) == []
