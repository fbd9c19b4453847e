"""Phones over adb. No phone is here: what benchmark_model prints is SYNTHETIC text in its form, and where a phone has to
answer, a stand-in for the `adb` client runs the commands on this machine. The refusals come from the real client."""

import shutil
import stat

import pytest

from agent.contract.errors import DeviceError, TransientDeviceError, UsageError
from agent.contract.manifest import RuntimeNeed
from packager.device import adb
from packager.device.device import Device
from packager.results.document import report_document
from tests.agent.bundles import manifest, write_bundle

# SYNTHETIC: written by hand, measured nowhere.
NEW = """INFO: STARTING!
INFO: Graph: [/data/local/tmp/model.tflite]
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
INFO: Initialized session in 12.345ms.
INFO: count=40 first=9000 curr=7100 min=7000 max=9000 avg=7200 std=300 p5=7000 median=7150 p95=7600
INFO: count=120 first=7050 curr=7010 min=6900 max=8000 avg=7061.5 std=90 p5=6950 median=7040 p95=7300
INFO: Inference timings in us: Init: 12345, First inference: 9000, Warmup (avg): 7200, Inference (avg): 7061.5
INFO: Memory footprint delta from the start of the tool (MB): init=3.5 overall=11.25
"""
OLD = """STARTING!
count=1 curr=1.5e+06
count=1 first=1500000 curr=1500000 min=1500000 max=1500000 avg=1.5e+06 std=0
Inference timings in us: Init: 400, First inference: 1600000, Warmup (avg): 1.6e+06, Inference (avg): 1.5e+06
"""
STAND_IN = """#!/bin/sh
# A stand-in for adb: a "phone" that is this machine.
shift 2
case "$1" in
get-state) echo device ;;
push) cp "$2" "$3" ;;
shell) case "$2" in
    "getprop ro.hardware") echo {hardware} ;;
    getprop*) echo synthetic ;;
    *) exec sh -c "$2" ;;
    esac ;;
esac
"""
BENCHMARK = """#!/bin/sh
test -s "${{1#--graph=}}" || exit 3
cat <<'TEXT'
{text}TEXT
"""


@pytest.fixture
def bundle(tmp_path):
    write_bundle(tmp_path / "phone.edgepack", manifest(runtime=RuntimeNeed(name="tflite", min_version="1.4.0")))
    return tmp_path / "phone.edgepack"


@pytest.fixture
def phone(tmp_path, monkeypatch):
    """Installs a stand-in; gives the path of a `benchmark_model` that prints `text`."""

    def make(text=NEW, hardware="qcom"):
        tools = tmp_path / "bin"
        tools.mkdir()
        for name, content in (
            ("adb", STAND_IN.format(hardware=hardware)),
            ("benchmark_model", BENCHMARK.format(text=text)),
        ):
            (tools / name).write_text(content)
            (tools / name).chmod(stat.S_IRWXU)
        monkeypatch.setenv("PATH", str(tools), prepend=":")
        monkeypatch.setattr(adb, "_FOLDER", str(tmp_path / "phone"))
        return str(tools / "benchmark_model")

    return make


def test_last_count_is_the_measurement():
    told = adb.parse_benchmark(NEW)
    assert (told.count, told.average_us, told.init_us, told.first_us) == (120, 7061.5, 12345, 9000)
    assert told.memory_bytes == 11_250_000


def test_old_output_without_memory_or_prefix():
    told = adb.parse_benchmark(OLD)
    assert (told.count, told.average_us, told.memory_bytes) == (1, 1_500_000, None)


@pytest.mark.parametrize(
    "text", ["", "CANNOT LINK EXECUTABLE: library not found\n", NEW.partition("INFO: Inference")[0]]
)
def test_output_without_timings_tells_the_last_words(text):
    with pytest.raises(DeviceError) as error:
        adb.parse_benchmark(text)
    assert error.value.code == "benchmark-model"
    assert text.strip()[-40:] in error.value.where


def test_phone_becomes_a_report_that_says_what_it_is(phone, bundle, tmp_path):
    with Device("adb:SYNTH1") as device:
        report = device.bench(bundle, benchmark_model=phone())
    document = report_document(report, "adb:SYNTH1", 1)
    assert document["latency"]["mean_ms"] == pytest.approx(7.0615)
    assert document["latency"]["n"] == 3
    assert document["latency"]["p99_ms"] is None
    assert report.parity is None
    assert {"averages", "parity-on-host-only"} <= {finding.code for finding in report.findings}
    assert list((tmp_path / "phone").iterdir()) == []


def test_android_emulator_is_labelled_not_run_on_a_phone(phone, bundle):
    with Device("adb:emulator-5554") as device:
        report = device.bench(bundle, benchmark_model=phone(hardware="ranchu"))
    assert report.emulation is not None
    assert "not run on a phone" in report.findings[0].message


@pytest.mark.parametrize("serial", ["", "-x", "a b", "a;b", "$(x)"])
def test_bad_serial(serial):
    with pytest.raises(UsageError) as error:
        adb.Phone(serial)
    assert error.value.code == "bad-address"


def test_words_are_quoted_for_the_phones_shell(phone):
    phone()
    assert adb.Phone("SYNTH1").shell("echo", "$HOME; exit 3").strip() == "$HOME; exit 3"


def test_without_benchmark_model(bundle):
    with Device("adb:SYNTH1") as device, pytest.raises(UsageError) as error:
        device.bench(bundle)
    assert error.value.code == "no-benchmark-model"
    assert "--benchmark-model PATH" in error.value.expected


def test_push_to_a_phone_is_refused(bundle):
    with Device("adb:SYNTH1") as device, pytest.raises(DeviceError) as error:
        device.push(bundle)
    assert error.value.code == "no-agent"


def test_failing_program_on_the_phone_is_not_a_lost_link(phone, tmp_path):
    phone()
    with pytest.raises(DeviceError) as error:
        adb.Phone("SYNTH1").shell("false")
    assert not isinstance(error.value, TransientDeviceError)


@pytest.mark.device
@pytest.mark.skipif(not shutil.which("adb"), reason="Debian's adb is not installed")
def test_no_such_phone(bundle, tmp_path):
    (tmp_path / "benchmark_model").write_text("never run")
    with Device("adb:nosuchphone") as device, pytest.raises(DeviceError) as error:
        device.bench(bundle, benchmark_model=str(tmp_path / "benchmark_model"))
    assert (error.value.code, error.value.exit_code) == ("no-device", 4)
    assert "not found" in error.value.what


@pytest.mark.parametrize(
    ("option", "word"),
    [({"batch": 4}, "--batch"), ({"sustained_minutes": 1.0, "streams": 2}, "--streams, --sustained")],
)
def test_what_only_the_agent_measures_is_refused(option, word):
    with Device("adb:R58N123") as phone, pytest.raises(UsageError, match=f"cannot be measured with {word}"):
        phone.bench("none.edgepack", **option)


def test_operators_of_a_phone_come_with_the_report(phone, bundle):
    table = (
        "===== Run Order =====\n\t[node type]\t[first]\t[avg ms]\t[%]\t[cdf%]\t[mem KB]\t[times called]\t[Name]\n"
        "\tCONV_2D\t4.3\t1.5\t60%\t60%\t0\t1\t[conv]:0\n"
    )
    with Device("adb:SYNTH1") as device:
        report = device.bench(bundle, benchmark_model=phone(text=NEW + table), profile=True)
    assert [(one.kind, one.original) for one in report.profile.layers] == [("CONV_2D", ["conv"])]
