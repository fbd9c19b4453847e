"""Ends of ranges from histograms."""

import numpy as np
import pytest

from packager.compress.quantize.clipping import best_clip, entropy_clip, percentile_clip


def test_percentile_cuts_both_tails():
    hist = np.ones(1000)
    assert percentile_clip(hist, -1.0, 1.0, 90.0) == pytest.approx((-0.9, 0.9), abs=0.005)
    assert percentile_clip(hist, 0.0, 2.0, 90.0) == pytest.approx((0.0, 1.8), abs=0.005)


@pytest.mark.parametrize("clip", [best_clip, entropy_clip])
def test_ranges_leave_a_lone_outlier_outside(clip):
    hist = np.zeros(2048)
    hist[:600] = np.exp(-np.linspace(0, 6, 600)) * 1e6
    hist[-1] = 1
    low, high = clip(hist, 0.0, 1.0, symmetric=False)
    assert low == 0
    assert 0.2 < high < 0.6
