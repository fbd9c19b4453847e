"""Energy by recorded INA3221 trees: which rail counts, what is kept, and what is derived."""

import dataclasses
import json
from pathlib import Path

import pytest

from agent.contract import codec
from agent.contract.report import Energy, ProbeReading, Round
from agent.measure import energy
from packager.results.energy import per_inference, told

TREES = Path(__file__).parents[1] / "probes" / "trees"
INA = "/sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/"


@pytest.fixture
def board(tmp_path):
    """Lays out a named tree."""

    def lay(name):
        files = json.loads((TREES / f"{name}.json").read_text(encoding="utf-8"))
        files.pop("_")
        for path, text in files.items():
            place = tmp_path / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8")
        return tmp_path

    return lay


def test_the_input_rail_counts_and_readings_are_kept(board):
    root = board("orin-nano-jetpack6")
    idle = energy.idle(str(root), readings=3, interval=0.0)
    assert idle == [5072.0] * 3
    (root / (INA + "curr1_input").lstrip("/")).write_text("2000\n")  # the model runs now
    found = energy.measure(lambda: None, idle, str(root), seconds=0.1)
    assert found.rail == "VDD_IN"
    assert set(found.power_mw) == {10144.0}
    assert found.idle_mw == idle
    assert found.inferences > 1
    assert found.seconds >= 0.1
    assert codec.decode(Energy, codec.encode(found)) == found


def test_without_an_input_rail_the_sum_is_named_as_such(board):
    root = board("agx-orin-throttled")
    found = energy.measure(lambda: None, energy.idle(str(root), readings=1), str(root), seconds=0.05)
    assert found.rail == energy.SUM
    assert found.power_mw[0] == 13000.0


def test_a_board_without_rails_has_no_energy_and_waits_for_nothing(board):
    root = str(board("xavier-nx-jetpack5"))
    assert energy.idle(root, readings=1000, interval=60.0) == []
    assert energy.measure(lambda: pytest.fail("ran"), [], root) is None


def test_a_run_that_fails_ends_the_watching(board):
    import threading

    root = str(board("orin-nano-jetpack6"))
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        energy.measure(lambda: 1 / 0, [1.0], root)
    assert threading.active_count() == before


def test_millijoules_are_power_times_seconds_over_inferences():
    one = Energy("VDD_IN", [8000.0, 12000.0], [4000.0], 100, 2.0)
    nothing = ProbeReading()
    report = dataclasses.make_dataclass("Told", ["rounds"])
    rounds = [Round(1, 1, [], [1], None, None, nothing, nothing, energy=value) for value in (one, None, one)]
    found = per_inference(report(rounds))
    assert found["mj_per_inference"] == pytest.approx(200.0)  # 10 W for 2 s over 100
    assert found["mj_per_inference_above_idle"] == pytest.approx(120.0)
    assert told(report(rounds)) == (
        "200.00 mJ per inference (120.00 above idle), by VDD_IN: 10.00 W running, 4.00 W idle"
    )
    assert per_inference(report(rounds[1:2])) is None
