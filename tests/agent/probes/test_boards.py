"""The probes on boards as their kernels show them: each tree in tests/agent/boards is one board at one moment."""

from pathlib import Path

import pytest

from agent.contract import codec
from agent.contract.report import ProbeReading
from agent.probes import cpu, memory, reading, thermal

BOARDS = Path(__file__).resolve().parents[1] / "boards"


@pytest.fixture
def board(tmp_path):
    """`board("jetson-orin-nano")` is the root folder of that board."""

    def unpack(name):
        place = None
        contents = {}
        for line in (BOARDS / f"{name}.tree").read_text(encoding="utf-8").splitlines(keepends=True):
            if line.startswith("--- "):
                place = line[4:].strip()
                contents[place] = ""
            elif place is not None:
                contents[place] += line
        for path, text in contents.items():
            file = tmp_path / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        return str(tmp_path)

    return unpack


def test_raspberry_pi_5_that_is_throttled_now(board):
    assert reading.take(board("raspberry-pi-5-throttled")) == ProbeReading(
        governor="ondemand",
        frequency_mhz=[1500.0, 1500.0],
        temperature_c=84.25,
        throttled=True,
        load_1min=3.2,
        memory_available=7340032 * 1024,
    )


def test_raspberry_pi_5_that_was_throttled_before(board):
    told = reading.take(board("raspberry-pi-5"))
    assert told.throttled is False
    assert told.frequency_mhz == [2400.0, 2400.0]
    assert told.temperature_c == 51.6


def test_jetson_shows_its_hottest_zone_and_its_active_cooling(board):
    told = reading.take(board("jetson-orin-nano"))
    assert told.temperature_c == 62.937
    assert told.throttled is True
    assert told.frequency_mhz == [1510.4, 729.6]
    assert told.governor == "schedutil"
    assert told.unread == {}


def test_x86_desktop_whose_cooling_is_idle(board):
    told = reading.take(board("x86-desktop"))
    assert told.throttled is False
    assert told.temperature_c == 44.0


def test_container_says_what_cannot_be_read_and_why(board):
    told = reading.take(board("container"))
    assert told.governor is None
    assert told.throttled is None
    assert told.temperature_c is None
    assert told.frequency_mhz == [2800.2, 2800.4]
    assert "no cpufreq" in told.unread["governor"]
    assert set(told.unread) == {"governor", "temperature_c", "throttled"}


def test_32_bit_board_with_an_old_kernel(board):
    root = board("armv7")
    told = reading.take(root)
    assert told.memory_available is None
    assert "MemAvailable" in told.unread["memory_available"]
    assert told.frequency_mhz is None
    assert told.governor == "interactive"
    assert memory.total(root) == 1026764 * 1024
    assert cpu.features(root) == ["neon"]


def test_nonsense_is_null_with_a_reason(board):
    root = board("unknown-core")
    told = reading.take(root)
    assert told == ProbeReading(unread=told.unread)
    assert set(told.unread) == {
        "governor",
        "frequency_mhz",
        "temperature_c",
        "throttled",
        "load_1min",
        "memory_available",
    }
    assert memory.total(root) is None


@pytest.mark.parametrize(
    ("name", "model", "features"),
    [
        ("raspberry-pi-5", "Cortex-A76", ["dotprod", "fp16", "neon"]),
        ("jetson-orin-nano", "Cortex-A78AE", ["dotprod", "fp16", "neon"]),
        ("x86-desktop", "Intel(R) N100", ["avx", "avx2", "f16c", "fma", "sse4_2", "vnni"]),
        (
            "container",
            "Intel(R) Xeon(R) Processor @ 2.80GHz",
            ["amx-int8", "avx", "avx2", "avx512f", "f16c", "fma", "sse4_2", "vnni"],
        ),
        ("unknown-core", "CPU part 0xfff", ["bf16", "i8mm", "neon", "sve2"]),
    ],
)
def test_processor(board, name, model, features):
    root = board(name)
    assert cpu.model(root) == model
    assert cpu.features(root) == features


def test_facts_of_a_board(board, tmp_path):
    root = board("raspberry-pi-5")
    facts = reading.facts(str(tmp_path / "not/yet/there"), root)
    assert facts.model == "Raspberry Pi 5 Model B Rev 1.0"
    assert facts.os == "Debian GNU/Linux 12 (bookworm)"
    assert facts.cpu_model == "Cortex-A76"
    assert facts.memory_total == 8255440 * 1024
    assert facts.disk_free > 0
    assert codec.loads(type(facts), codec.dumps(facts)) == facts


def test_board_without_a_device_tree_is_named_by_its_processor(board, tmp_path):
    assert reading.facts(str(tmp_path), board("x86-desktop")).model == "Intel(R) N100"


def test_nothing_at_all_can_be_read(tmp_path):
    assert not cpu.available(str(tmp_path))
    assert not memory.available(str(tmp_path))
    assert not thermal.available(str(tmp_path))
    # Without /proc no probe runs; what is null must still have its reason.
    assert reading.take(str(tmp_path)).frequency_mhz is None


def test_this_machine():
    told = reading.take()
    for name in ("governor", "frequency_mhz", "temperature_c", "throttled", "load_1min", "memory_available"):
        assert (getattr(told, name) is None) == (name in told.unread), name
    assert memory.process_peak() >= memory.process_resident() > 0
    assert cpu.cores() >= 1
