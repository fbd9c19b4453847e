"""Comparing until it is decided: how often it looks, what each look may err, and that a stored one is judged alike."""

import itertools

import numpy as np
import pytest

from packager.compare import verdict
from packager.compare.run import again, compare
from tests.packager.compare.test_ratio import measured
from tests.packager.results.test_pairings import pairing


class Recorded:
    """Pairings of simulated samples in the place of a device: what is judged is not how they were measured."""

    address, counts_instructions = "recorded", False

    def __init__(self, *ratios):
        self.said, self.left = [], iter(ratios)
        self.progress = self.said.append
        self.count = itertools.count()

    def compare(self, a, b, **options):
        del a, b, options
        return pairing(f"job-{next(self.count)}", next(self.left), seed=next(self.count))


def test_it_looks_again_until_it_is_decided():
    # Six rounds on the margin itself decide nothing; so many of 1.3 beside them do.
    device = Recorded(1.02, *[1.3] * 14)
    found = compare(device, "a", "b", until_decided=True)
    assert found.judgement.verdict == verdict.SLOWER
    looks = len(found.pairings)
    assert looks > 1
    assert found.judgement.level == pytest.approx(1 - 0.05 / (looks * (looks + 1)))
    assert len(device.said) == looks - 1
    assert again("recorded", found.pairings, 0.02, looks).judgement == found.judgement


def test_it_ends_where_it_was_told_to():
    device = Recorded(*[1.02] * 10)
    found = compare(device, "a", "b", until_decided=True, most_rounds=18)
    assert found.judgement.rounds <= 18


def test_all_looks_together_err_as_often_as_one():
    shares = [0.05 / (look * (look + 1)) for look in range(1, 1000)]
    assert sum(shares) == pytest.approx(0.05, rel=1e-2)
    rounds = measured(np.random.default_rng(1), 1.0, rounds=12)
    assert verdict.judge(rounds, look=1).level == pytest.approx(1 - shares[0])
