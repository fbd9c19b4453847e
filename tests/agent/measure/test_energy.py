"""Energy by recorded INA3221 trees: what is read, what is kept, and what is derived."""

import dataclasses
import json
from pathlib import Path

import pytest

from agent.contract import codec
from agent.contract.protocol import Drawn, Protocol
from agent.contract.report import ProbeReading, Round
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


def test_an_input_rail_is_integrated_and_stands_beside_its_idle_power(board):
    root = board("orin-nano-jetpack6")
    idle = energy.idle(str(root), seconds=0.05)
    assert idle["VDD_IN"] == pytest.approx(5072.0)
    (root / (INA + "curr1_input").lstrip("/")).write_text("2000\n")  # the model runs now
    found = energy.measure(lambda: None, idle, str(root), seconds=0.3)
    assert found.joules["VDD_IN"] == pytest.approx(10.144 * found.seconds)
    assert energy.SUM not in found.joules
    assert (found.idle_mw, found.unread) == (idle, "")
    assert found.inferences > 1
    assert found.seconds >= 0.3
    assert codec.decode(Drawn, codec.encode(found)) == found


def test_without_an_input_rail_the_sum_stands_beside_the_rails(board):
    root = str(board("agx-orin-throttled"))
    found = energy.measure(lambda: None, energy.idle(root, seconds=0.05), root, seconds=0.2)
    assert found.joules[energy.SUM] == pytest.approx(13.0 * found.seconds)
    assert found.joules[energy.SUM] == pytest.approx(sum(found.joules.values()) / 2)
    assert found.idle_mw[energy.SUM] == pytest.approx(13000.0)


def test_a_board_without_rails_says_so_and_waits_for_nothing(board):
    root = str(board("xavier-nx-jetpack5"))
    assert energy.idle(root, seconds=60.0) == {}
    found = energy.measure(lambda: pytest.fail("ran"), {}, root)
    assert (found.joules, found.inferences) == ({}, 0)
    assert "no rail" in found.unread


def test_a_run_that_fails_ends_the_watching(board):
    import threading

    root = str(board("orin-nano-jetpack6"))
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        energy.measure(lambda: 1 / 0, {}, root)
    assert threading.active_count() == before


def test_millijoules_are_joules_over_inferences_and_samples():
    one = Drawn({"VDD_IN": 20.0}, {"VDD_IN": 4000.0}, 2.0, 100)
    nothing = ProbeReading()
    report = dataclasses.make_dataclass("Told", ["rounds", ("protocol", object, None)])
    rounds = [Round(1, 1, [], [1], None, None, nothing, nothing, energy=value) for value in (one, None, one)]
    found = per_inference(report(rounds))
    assert found["rails"]["VDD_IN"]["mj_per_inference"] == pytest.approx(200.0)  # 10 W for 2 s over 100
    assert found["rails"]["VDD_IN"]["mj_per_inference_above_idle"] == pytest.approx(120.0)
    assert told(report(rounds)) == "VDD_IN: 200 mJ per inference (120 above idle), 10.00 W running, 4.00 W idle"
    batched = per_inference(report(rounds, Protocol(1.0, None, 3, 0.5, 5, batch=4)))
    assert batched["rails"]["VDD_IN"]["mj_per_inference"] == pytest.approx(50.0)
    assert per_inference(report(rounds[1:2])) is None


def test_a_report_without_rails_says_why():
    rounds = [Round(1, 1, [], [1], None, None, ProbeReading(), ProbeReading(), energy=Drawn({}, {}, 0.0, 0, "no rail"))]
    report = dataclasses.make_dataclass("Told", ["rounds", ("protocol", object, None)])(rounds)
    assert per_inference(report) == {"rails": {}, "inferences": 0, "seconds": 0.0, "unread": "no rail"}
    assert told(report) == ""
