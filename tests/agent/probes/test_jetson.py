import json
from pathlib import Path

import pytest

from agent.probes import jetson, reading

TREES = Path(__file__).parent / "trees"


@pytest.fixture
def tree(tmp_path):
    """Lays out a named tree, with changes (None: the file is not there)."""

    def lay(name, **changes):
        files = json.loads((TREES / f"{name}.json").read_text(encoding="utf-8"))
        files.pop("_")
        for path, text in {**files, **changes}.items():
            if text is not None:
                place = tmp_path / path.lstrip("/")
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text(text, encoding="utf-8")
        return str(tmp_path)

    return lay


def test_an_orin_nano(tree):
    root = tree("orin-nano-jetpack6")
    assert jetson.available(root)
    assert jetson.board(root) == {
        "model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        "soc": "tegra234",
        "l4t": "36.4.3",
        "jetpack": "6.2",
        "jetpack_from": "package nvidia-jetpack",
    }
    told = jetson.read(root)
    assert told == {
        "gpu_mhz": 1020.0,
        "gpu_load": 0.875,
        "clocks_locked": False,
        "power_mw": {"VDD_IN": 5072.0, "VDD_CPU_GPU_CV": 2532.0, "VDD_SOC": 1266.0},
        "power_mode": "25W",
        "throttled": False,
        "unread": {},
    }
    assert jetson.input_power(told["power_mw"]) == ("VDD_IN", 5072.0)
    assert jetson.overcurrent_events(root) == 2


def test_an_agx_orin_that_throttles_with_locked_clocks(tree):
    root = tree("agx-orin-throttled")
    told = jetson.read(root)
    assert told["throttled"] is True
    assert told["clocks_locked"] is True
    assert told["gpu_mhz"] == 612.0
    assert told["power_mw"] == {"VDD_GPU_SOC": 12000.0, "VDDQ_VDD2_1V8AO": 1000.0}
    assert jetson.input_power(told["power_mw"]) is None
    assert (jetson.board(root)["jetpack"], jetson.board(root)["jetpack_from"]) == ("6.0", "L4T 36.3.0")
    assert "gpu_load" in told["unread"]


def test_one_reading_holds_all_and_a_warning_beats_an_all_clear(tree):
    taken = reading.take(tree("agx-orin-throttled"))
    assert taken.throttled is True
    assert taken.gpu_mhz == 612.0
    assert taken.power_mode == "MAXN"
    assert "throttled" not in taken.unread


def test_a_xavier_of_jetpack_5_without_rails(tree):
    root = tree("xavier-nx-jetpack5")
    told = jetson.read(root)
    assert told["gpu_mhz"] == 1109.25
    assert told["power_mode"] == "mode 8"
    assert told["throttled"] is None
    assert told["power_mw"] is None
    assert "root" in told["unread"]["power_mw"]
    assert jetson.board(root)["jetpack"] == "5.1.2"
    assert jetson.overcurrent_events(root) is None


def test_an_unknown_l4t_has_no_jetpack_rather_than_a_guess(tree):
    root = tree("xavier-nx-jetpack5", **{"/etc/nv_tegra_release": "# R99 (release), REVISION: 1.0, GCID: 1"})
    assert jetson.board(root)["l4t"] == "99.1.0"
    assert jetson.board(root)["jetpack"] == ""


def test_a_container_without_devfreq_says_so(tree):
    changes = {path: None for path in json.loads((TREES / "xavier-nx-jetpack5.json").read_text()) if "devfreq" in path}
    told = jetson.read(tree("xavier-nx-jetpack5", **changes))
    assert told["gpu_mhz"] is None
    assert "container" in told["unread"]["gpu_mhz"]


def test_a_removed_package_is_not_installed(tree):
    status = "Package: nvidia-jetpack\nStatus: deinstall ok config-files\nVersion: 6.1\n"
    assert (
        jetson.package_version(tree("orin-nano-jetpack6", **{"/var/lib/dpkg/status": status}), "nvidia-jetpack") is None
    )


def test_what_is_no_jetson_has_no_board(tmp_path):
    assert not jetson.available(str(tmp_path))
    assert jetson.board(str(tmp_path)) == {}
