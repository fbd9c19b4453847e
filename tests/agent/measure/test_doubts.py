"""Each doubt about samples is raised by samples that deserve it, and by no others: simulated, so that the truth is known."""

import dataclasses
import re
import subprocess
import sys
import time

import numpy as np
import pytest

from agent.contract.report import ProbeReading, Round
from agent.measure import doubts, sampler
from agent.probes import cpu
from tests.agent.measure.test_stability import COOL, STEADY

RANDOM = np.random.default_rng(8)


def noisy(n=600, level=1e6, sigma=0.02):
    return [int(value) for value in level * np.exp(RANDOM.normal(0, sigma, n))]


def codes(*rounds):
    found = list(doubts.of_samples(list(rounds)))
    assert all(finding.advice for finding in found)
    return {finding.code: finding for finding in found}


def with_(**changes):
    return dataclasses.replace(STEADY, **{"samples_ns": noisy(), **changes})


def test_steady_noise_raises_none():
    assert codes(*[with_(warmup_ns=noisy(90)) for _ in range(3)]) == {}


def test_warm_up_that_never_settled():
    falling = [int(5e6 * 0.97**k) for k in range(90)]
    found = codes(with_(), with_(warmup_ns=falling))
    assert found["unsettled"].message.startswith("1 of 2 warm-ups")
    assert "unsettled" not in codes(with_(warmup_ns=falling + [1_000_000] * 200))


@pytest.mark.parametrize(("slope", "word"), [(0.2, "slower"), (-0.2, "faster")])
def test_drift_within_rounds_is_told_with_its_direction(slope, word):
    drifting = with_(samples_ns=[int(v * (1 + slope * k / 600)) for k, v in enumerate(noisy())])
    assert word in codes(drifting, drifting, with_())["drift"].message
    assert "drift" not in codes(drifting, with_(), with_())


def test_two_levels_are_told_with_their_shares():
    found = codes(with_(samples_ns=noisy(700) + noisy(300, 1.4e6)))["modes"]
    assert "2 levels" in found.message
    assert re.search(r"(69|70|71) %.*(29|30|31) %", found.message)


@pytest.mark.parametrize("n", [400, 4000])
def test_a_tail_or_a_wide_spread_is_no_second_level(n):
    tail = (RANDOM.random(n) < 0.15) * RANDOM.exponential(0.7, n)
    alarms = 0
    for _ in range(20):
        alarms += bool(doubts.modes([int(v) for v in 1e6 * np.exp(RANDOM.normal(0, 0.02, n) + tail)]))
        alarms += bool(doubts.modes(noisy(n, sigma=0.2)))
    assert alarms <= 2


def test_too_few_samples_have_no_levels():
    assert doubts.modes([10, 20] * 100) == []


def test_first_inference_that_costs_many():
    assert "80 times" in codes(with_(samples_ns=[10**6] * 100, first_ns=80_000_000))["first-run"].message
    assert "first-run" not in codes(with_(first_ns=3_000_000))


def test_coarse_clock_is_told_with_step_and_loops():
    assert "1000 ns" in codes(with_(loops=4, tick_ns=1000))["coarse-clock"].message
    assert "coarse-clock" not in codes(with_(tick_ns=40))


def test_clock_that_differs_from_round_to_round():
    slower = dataclasses.replace(COOL, frequency_mhz=[1500.0])
    assert "1500" in codes(with_(), with_(after=slower))["clock-moved"].message


@pytest.mark.parametrize(("field", "code"), [("others_cores", "busy-cores"), ("stolen_cores", "stolen")])
def test_others_on_the_cores(field, code):
    assert "0.7" in codes(with_(**{field: 0.7}))[code].message
    assert code not in codes(with_(**{field: 0.05}))
    assert code not in codes(with_(**{field: None}))


def test_real_work_of_others_is_counted_and_our_own_is_not():
    work = cpu.Work()
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        try:
            end = time.monotonic() + 1.0
            while time.monotonic() < end:
                sum(range(1000))
            taken, _ = work.of_others()
        finally:
            other.kill()
    assert taken is not None
    assert taken > 0.1


def test_work_is_not_told_where_the_kernel_does_not(tmp_path):
    assert cpu.Work(str(tmp_path)).of_others() == (None, None)


@pytest.mark.parametrize(
    ("board", "others", "tick", "code"),
    [
        (COOL, 0.9, 40, "busy-cores"),
        (ProbeReading(temperature_c=80.0), None, 40, "hot"),
        (COOL, 0.0, 1000, "coarse-clock"),
    ],
)
def test_what_is_told_before_a_run(board, others, tick, code):
    (found,) = doubts.beforehand(board, others, tick)
    assert found.code == code
    assert found.advice
    assert doubts.beforehand(COOL, 0.0, 40) == []


def test_loops_make_the_clock_fine_enough():
    assert [sampler.loops_for(typical, 50) for typical in (20_000, 5_000, 4_999, 1_000, 0)] == [1, 1, 2, 5, 5000]
    assert 0 < sampler.tick() < 1_000_000


def test_looped_samples_are_means_and_count_exactly():
    calls = []
    samples = sampler.sample(calls.append, {}, 0.0, 10, loops=4)
    assert (len(samples), len(calls)) == (3, 12)
    assert isinstance(STEADY, Round)
