"""Stored reports are compared only where that is no lie."""

import dataclasses
import sqlite3

import pytest

from agent.contract.errors import UsageError
from agent.contract.facts import DeviceFacts
from agent.contract.protocol import Protocol
from agent.contract.report import Emulation, ProbeReading, Report, Round, RuntimeUsed
from packager.results.compare import compare
from packager.results.document import latency, report_document
from packager.results.store import ResultStore


def made(samples, *, job="a", **changes):
    facts = DeviceFacts(
        hostname="board",
        model="board",
        machine="aarch64",
        kernel="6",
        os="Debian",
        python="3.11.2",
        python_path="/usr/bin/python3",
        libc="glibc-2.36",
        numpy="2.4.6",
        runtimes=[],
        cpu_model="Cortex-A72",
        cpu_cores=4,
        cpu_features=["neon"],
        memory_total=1,
        memory_available=1,
        disk_free=1,
        root="/x",
        clock_unix=0.0,
    )
    one = Round(10, 10, [10], samples, 1000, 100, ProbeReading(governor="performance"), ProbeReading())
    report = Report(
        job=job,
        bundle="sha256:" + "0" * 64,
        name="net",
        target="raspberry-pi-4",
        recipe="fp32",
        runtime=RuntimeUsed("onnxruntime", "1.32.0", "CPUExecutionProvider", 1),
        parity=None,
        rounds=[one],
        facts=facts,
        model_bytes=100,
        bundle_bytes=200,
        source_bytes=100,
        started_unix=0.0,
        findings=[],
    )
    return dataclasses.replace(report, **changes)


EMULATED = Emulation(cpu="cortex-a72", ns_per_instruction=2.0)


def test_the_ratio_is_b_over_a():
    found = compare(made([1000] * 10), made([1500] * 10, model_bytes=25))
    assert (found.unit, found.p50_ratio, found.mean_ratio, found.size_ratio) == ("ms", 1.5, 1.5, 0.25)


def test_instructions_are_never_compared_with_milliseconds():
    with pytest.raises(UsageError, match="instructions, emulated cortex-a72"):
        compare(made([1000]), made([1000], emulation=EMULATED))


def test_two_emulated_processors_are_not_compared():
    other = Emulation(cpu="cortex-a76", ns_per_instruction=2.0)
    with pytest.raises(UsageError, match="cortex-a76"):
        compare(made([1000], emulation=EMULATED), made([1000], emulation=other))


def test_another_thread_count_is_not_compared():
    used = RuntimeUsed("onnxruntime", "1.32.0", "CPUExecutionProvider", 4)
    with pytest.raises(UsageError, match="threads: 1 and 4"):
        compare(made([1000]), made([1000], runtime=used))


def test_an_emulated_report_says_instructions_and_no_milliseconds():
    report = made([2000, 2002, 2004], emulation=EMULATED)
    numbers = latency(report)
    assert numbers["unit"] == "instructions"
    assert numbers["label"] == "instructions, emulated cortex-a72"
    assert numbers["samples_instructions"] == [1000, 1001, 1002]
    assert numbers["p50_instructions"] == 1001
    document = report_document(report, "pi")
    assert not [key for key in (*numbers, *document, *document["rounds"][0]) if key.endswith(("_ms", "_ns"))]
    assert document["load_instructions"] == 5


def test_a_report_survives_the_store_and_is_kept_once(tmp_path):
    store = ResultStore(tmp_path / "results.sqlite")
    first = store.add(made([5, 6, 7]), "pi")
    assert store.add(made([5, 6, 7]), "pi") == first
    second = store.add(made([9], job="b"), "pi")
    assert [one.run for one in store.newest()] == [second, first]
    assert store.get(first).report == made([5, 6, 7])
    with pytest.raises(UsageError, match="no run 99"):
        store.get(99)


def test_a_report_of_another_form_does_not_hide_the_rest(tmp_path):
    store = ResultStore(tmp_path / "results.sqlite")
    old = store.add(made([1]), "pi")
    new = store.add(made([2], job="b"), "pi")
    with sqlite3.connect(store.path) as database:
        database.execute(
            "update reports set document = replace(document, '\"rounds\"', '\"turns\"') where run = ?", (old,)
        )
    database.close()
    assert [one.run for one in store.newest()] == [new]
    ((run, why),) = store.unreadable
    assert run == old
    assert "turns" in why


def test_a_database_that_is_none_is_left_alone(tmp_path):
    path = tmp_path / "results.sqlite"
    path.write_bytes(b"this is no database, but somebody's file" * 100)
    with pytest.raises(UsageError, match="cannot be used"):
        ResultStore(path).newest()
    assert path.read_bytes().startswith(b"this is no database")


def test_another_clock_is_not_compared():
    slow, fast = (
        dataclasses.replace(made([1000]).rounds[0], after=ProbeReading(frequency_mhz=[mhz, 600.0]))
        for mhz in (1200.0, 1800.0)
    )
    with pytest.raises(UsageError, match="the clock: 1800 and 1200 MHz"):
        compare(made([1000], rounds=[fast]), made([1000], rounds=[slow]))
    alike = dataclasses.replace(fast, after=ProbeReading(frequency_mhz=[1790.0]))
    assert compare(made([1000], rounds=[fast]), made([1000], rounds=[alike])).p50_ratio == 1.0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch": 8}, "batch: 0 and 8"),
        ({"streams": 2}, "streams: 1 and 2"),
        ({"sustained_minutes": 30.0}, "sustained_minutes: 0.0 and 30.0"),
        ({"warmup_seconds": 0.0}, "warmup_seconds: 0.5 and 0.0"),
        ({"rounds": 1, "seconds": 9.0}, "seconds: 3.0 and 9.0; the protocol's rounds: 3 and 1"),
    ],
)
def test_another_protocol_is_not_compared(changes, said):
    asked = Protocol(3.0, None, 3, 0.5, 5)
    with pytest.raises(UsageError, match=said):
        compare(made([1000], protocol=asked), made([1000], protocol=dataclasses.replace(asked, **changes)))
    assert compare(made([1000], protocol=asked), made([1000])).p50_ratio == 1.0, "an older report tells none"


def test_another_power_mode_is_not_compared():
    other = dataclasses.replace(made([1000]).rounds[0], before=ProbeReading(governor="performance", power_mode="15W"))
    with pytest.raises(UsageError, match="the power mode: None and 15W"):
        compare(made([1000]), made([1000], rounds=[other]))
