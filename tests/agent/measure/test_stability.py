"""Each doubt about a measurement is a finding with advice, and a steady measurement has none."""

import dataclasses

import pytest

from agent.contract.finding import ERROR, WARNING, Finding
from agent.contract.manifest import Calibration
from agent.contract.report import OutputParity, Parity, ProbeReading, Round
from agent.measure import stability
from tests.agent.bundles import manifest

PASS = Parity("pass", 1, [OutputParity("y", 1.0, 0.0, 1.0, "pass")])
FAIL = Parity("fail", 1, [OutputParity("y", 0.1, 9.0, 0.0, "fail"), OutputParity("z", 1.0, 0.0, 1.0, "pass")])
COOL = ProbeReading(governor="performance", frequency_mhz=[1800.0, 1500.0], temperature_c=50.0, throttled=False)
STEADY = Round(
    load_ns=1,
    first_ns=1,
    warmup_ns=[1],
    samples_ns=[1_000_000] * 200,
    peak_memory_bytes=1,
    baseline_memory_bytes=1,
    before=COOL,
    after=COOL,
)


def codes(rounds=(STEADY,), parity=PASS, document=None):
    found = stability.findings(list(rounds), parity, document or manifest())
    assert all(finding.advice for finding in found)
    return {finding.code: finding for finding in found}


def with_(one=STEADY, **changes):
    return dataclasses.replace(one, **changes)


def test_steady_measurement_has_no_findings():
    assert codes([STEADY, STEADY]) == {}


def test_wrong_outputs_are_an_error_that_names_them():
    finding = codes(parity=FAIL)["parity"]
    assert finding.level == ERROR
    assert finding.message.endswith("original's: y")


def test_nothing_to_compare_with():
    assert codes(parity=None)["no-golden"].level == WARNING


def test_random_calibration_is_stamped_once():
    document = manifest(calibration=Calibration("random", "0" * 64, 8))
    assert "random-calibration" in codes(document=document)
    stamped = dataclasses.replace(document, findings=[stability.random_calibration()])
    assert "random-calibration" not in codes(document=stamped)
    assert codes(document=manifest(calibration=Calibration("npz", "0" * 64, 8))) == {}


@pytest.mark.parametrize(("n", "missing"), [(5, "p90, p95, p99"), (15, "p95, p99"), (99, "p99")])
def test_too_few_samples_name_the_percentiles(n, missing):
    assert codes([with_(samples_ns=[10] * n)])["few-samples"].message == f"{n} samples are too few for {missing}"


def test_wide_spread():
    assert "spread" in codes([with_(samples_ns=[100] * 80 + [151] * 20)])
    assert "spread" not in codes([with_(samples_ns=[100] * 80 + [149] * 20)])


def test_rounds_that_disagree():
    assert "rounds-disagree" in codes([STEADY, with_(samples_ns=[1_120_000] * 200)])
    assert "rounds-disagree" not in codes([STEADY, with_(samples_ns=[1_090_000] * 200)])


def test_short_rounds_are_not_compared():
    assert "rounds-disagree" not in codes([STEADY, with_(samples_ns=[2_000_000] * 19)])


def test_clock_that_fell_is_told_with_both_values():
    slow = dataclasses.replace(COOL, frequency_mhz=[1200.0, 600.0])
    assert codes([with_(after=slow)])["clock-fell"].message == "the clock fell from 1800 to 1200 MHz during the run"


def test_clock_that_rose_or_cannot_be_read_is_no_finding():
    assert codes([with_(before=dataclasses.replace(COOL, frequency_mhz=[600.0]))]) == {}
    assert codes([with_(after=dataclasses.replace(COOL, frequency_mhz=None))]) == {}


@pytest.mark.parametrize("when", ["before", "after"])
def test_throttled_board(when):
    hot = dataclasses.replace(COOL, throttled=True)
    assert "throttled" in codes([STEADY, with_(**{when: hot})])


@pytest.mark.parametrize("governor", ["powersave", "ondemand", "schedutil", "conservative"])
def test_governor_that_moves_the_clock(governor):
    assert "governor" in codes([with_(before=dataclasses.replace(COOL, governor=governor))])


def test_board_that_tells_nothing_has_no_findings_made_up():
    assert codes([with_(before=ProbeReading(), after=ProbeReading())]) == {}


def test_same_doubt_of_three_rounds_is_told_once():
    hot = with_(before=dataclasses.replace(COOL, throttled=True))
    found = stability.findings([hot, hot, hot], PASS, manifest())
    assert [finding.code for finding in found] == ["throttled"]


def test_no_rounds_at_all():
    assert codes([]) == {}


@pytest.mark.parametrize(("load", "cores", "told"), [(None, 4, 0), (1.9, 4, 0), (2.1, 4, 1), (0.6, 1, 1)])
def test_busy_device(load, cores, told):
    found = stability.busy(load, cores)
    assert len(found) == told
    assert all(isinstance(finding, Finding) and finding.code == "busy" for finding in found)
