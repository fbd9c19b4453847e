"""The interval covers the truth as often as it promises, and the verdict says no more than it."""

import math

import numpy as np
import pytest

from agent.contract.errors import UsageError
from agent.contract.pairing import PairRound, Quad
from agent.contract.report import ProbeReading
from packager.compare import ratio, verdict
from packager.compare.ratio import Interval

NOTHING = ProbeReading()


def measured(random, true, *, rounds=12, quads=3, n=8, process=0.01, drift=0.1):
    """Rounds as a drifting, shared machine gives them: a slow walk under both sides, and luck of each process."""
    level, made = random.normal(0, drift), []
    for index in range(rounds):
        luck = dict(zip("AB", random.normal(0, process, 2), strict=True))
        blocks = []
        for _ in range(quads):
            sides = {"A": [], "B": []}
            for side in "BAAB" if index % 2 else "ABBA":
                level = 0.98 * level + random.normal(0, drift * 0.2)
                hit = (random.random(n) < 0.15) * random.exponential(0.7, n)
                logs = level + luck[side] + (math.log(true) if side == "B" else 0) + random.normal(0, 0.01, n) + hit
                sides[side].append([int(value) for value in 1e6 * np.exp(logs)])
            blocks.append(Quad(a_ns=sides["A"], b_ns=sides["B"]))
        made.append(PairRound(quads=blocks, before=NOTHING, after=NOTHING))
    return made


def test_interval_covers_the_truth_as_promised():
    random = np.random.default_rng(3)
    found = [ratio.of_medians(measured(random, 1.05)) for _ in range(150)]
    covered = sum(one.low <= 1.05 <= one.high for one in found)
    # 95 % of 150 is 142.5, give or take three standard deviations of 2.7; benchmarks/compare_truth.py has the long run.
    assert 134 <= covered <= 150


def test_equal_bundles_raise_no_alarm_and_a_tenth_is_found():
    random = np.random.default_rng(4)
    same = [verdict.judge(measured(random, 1.0)).verdict for _ in range(50)]
    slow = [verdict.judge(measured(random, 1.1)).verdict for _ in range(20)]
    assert not {"faster", "slower"} & set(same)
    assert slow.count("slower") >= 18
    assert "faster" not in slow


def test_same_samples_give_the_same_interval():
    rounds = measured(np.random.default_rng(5), 1.0)
    assert ratio.of_medians(rounds) == ratio.of_medians(rounds)


def test_too_few_rounds_are_refused():
    with pytest.raises(UsageError, match="5 rounds are too few"):
        ratio.of_medians(measured(np.random.default_rng(5), 1.0, rounds=5))


def test_p95_needs_twenty_samples_of_a_side_in_a_round():
    random = np.random.default_rng(6)
    assert ratio.of_p95(measured(random, 1.0, quads=1, n=9)) is None
    assert ratio.of_p95(measured(random, 1.0, quads=1, n=10)) is not None


@pytest.mark.parametrize(
    ("share", "freedom", "table"), [(0.975, 5, 2.571), (0.975, 11, 2.201), (0.9958, 11, 3.186), (0.975, 1000, 1.962)]
)
def test_student_agrees_with_the_tables(share, freedom, table):
    assert ratio.student(share, freedom) == pytest.approx(table, rel=0.01)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (1.021, 1.3, "slower"),
        (1.019, 1.3, "inconclusive"),
        (0.985, 1.019, "same"),
        (0.7, 0.97, "faster"),
        (0.7, 0.99, "inconclusive"),
        (0.5, 2.0, "inconclusive"),
    ],
)
def test_verdict_needs_the_whole_interval(low, high, said):
    assert verdict.verdict_of(Interval(math.sqrt(low * high), low, high), 0.02) == said


def test_more_rounds_grow_with_the_square_of_the_width():
    few = verdict.more_rounds(Interval(1.05, 1.01, 1.09), 12, 0.02)
    many = verdict.more_rounds(Interval(1.05, 0.97, 1.13), 12, 0.02)
    assert 0 < few < many
    assert verdict.more_rounds(Interval(1.02, 0.9, 1.2), 12, 0.02) is None


def test_later_looks_ask_for_more():
    rounds = measured(np.random.default_rng(7), 1.0)
    levels = [verdict.judge(rounds, look=look).level for look in (1, 2, 3)]
    assert levels == sorted(levels)
    assert sum(1 - level for level in levels) < 0.05
