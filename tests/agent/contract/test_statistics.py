"""Statistics are numpy's, without numpy; and silent where the count does not support them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.contract.statistics import middle, percentile, summary, supported

samples = st.lists(st.integers(min_value=1, max_value=10**13), min_size=1, max_size=300)


@given(samples, st.sampled_from([0, 50, 90, 95, 99, 100]) | st.floats(0, 100))
def test_percentile_equals_numpy_s(values, share):
    ordered = sorted(float(value) for value in values)
    assert percentile(ordered, share) == pytest.approx(np.percentile(values, share), rel=1e-12)


@given(samples)
def test_summary_equals_numpy_s(values):
    found = summary(values)
    array = np.asarray(values, dtype="float64")
    assert found["n"] == len(values)
    assert found["mean"] == pytest.approx(array.mean(), rel=1e-12)
    assert (found["min"], found["max"]) == (array.min(), array.max())
    if len(values) > 1:
        assert found["std"] == pytest.approx(array.std(ddof=1), rel=1e-9, abs=1e-6 * array.max())
    for share in (50, 90, 95, 99):
        if found[f"p{share}"] is not None:
            assert found[f"p{share}"] == pytest.approx(np.percentile(array, share), rel=1e-12)


@pytest.mark.parametrize(("n", "known"), [(1, ["p50"]), (9, ["p50"]), (10, ["p50", "p90"])])
def test_percentile_without_samples_beyond_it_is_null(n, known):
    found = summary(list(range(1, n + 1)))
    assert [key for key in ("p50", "p90", "p95", "p99") if found[key] is not None] == known


def test_limits_of_p95_and_p99():
    assert next(n for n in range(1, 200) if supported(n, 95)) == 20
    assert next(n for n in range(1, 200) if supported(n, 99)) == 100


def test_nothing_measured_is_null_throughout():
    assert summary([]) == {"n": 0} | dict.fromkeys(["mean", "std", "min", "max", "p50", "p90", "p95", "p99"])


def test_one_sample_has_no_spread():
    assert summary([7])["std"] is None


def test_order_does_not_matter():
    values = list(range(1, 101))
    assert summary(values) == summary(values[::-1])


def test_the_middle_half_does_not_see_what_was_preempted():
    assert middle([10, 11, 11, 12, 11, 10, 900, 5000]) == 11.25
    assert middle([7]) == 7
