"""Histograms of activations: they add up whatever their reach, and each method reads its range from them."""

import dataclasses

import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra")

from packager.compress.quantize.executorch_ranges import Histogram  # noqa: E402 - after the skip
from packager.recipe import NAMED  # noqa: E402

INT8 = NAMED["int8"]


def counted(*tensors):
    found = Histogram()
    for one in tensors:
        found.add(one)
    return found


def test_histograms_of_different_reach_add_up():
    small, large = torch.linspace(-1, 1, 1000), torch.linspace(-300, 100, 1000)
    together, merged = counted(small, large), counted(small)
    merged.merge(counted(large))
    other = counted(large)
    other.merge(counted(small))
    assert together.reach == merged.reach == other.reach == 512
    assert together.counts.tolist() == merged.counts.tolist() == other.counts.tolist()
    assert together.counts.sum() == 2000
    assert (merged.low, merged.high) == (-300.0, 100.0)


def test_a_range_holds_zero_and_ends_with_the_values():
    assert counted(torch.tensor([2.0, 3.0])).ends(INT8) == (0.0, 3.0)
    assert counted(torch.zeros(4)).ends(INT8) == (0.0, 0.0)


def test_what_pads_a_maximum_is_no_activation():
    low = torch.finfo(torch.float32).min
    values = torch.tensor([low, -1.0, float("nan"), 2.0, float("inf")])
    assert counted(values).ends(INT8) == (-1.0, 2.0)


@pytest.mark.parametrize("method", ["mse", "percentile", "entropy"])
def test_a_lone_outlier_stays_outside(method):
    values = torch.cat([torch.rand(1_000_000, generator=torch.Generator().manual_seed(0)), torch.tensor([3.0])])
    low, high = counted(values).ends(dataclasses.replace(INT8, method=method, percentile=99.99))
    assert low == 0.0
    assert 0.9 < high < 2.0


def test_zeros_are_exact_in_any_range_and_weigh_nothing():
    """As a ReLU gives them, nine in ten: they must not draw the range in."""
    values = torch.rand(2000, generator=torch.Generator().manual_seed(0)) ** 3
    recipe = dataclasses.replace(INT8, method="mse")
    assert counted(values, torch.zeros(50_000)).ends(recipe) == counted(values).ends(recipe)
