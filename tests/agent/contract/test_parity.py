"""The golden check: worst sample counts, and nothing undefined passes as equal."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from agent.contract.manifest import Tolerance
from agent.contract.parity import compare

STRICT = Tolerance(min_cosine=0.9999, max_abs=1e-6)
EXACT = Tolerance(min_cosine=2.0, max_abs=0.0)  # no cosine is enough


def check(want, got, tolerance=STRICT, name="y"):
    """The one output's record, and the verdict; `want` and `got` have the samples first."""
    rows = [{name: row} for row in np.asarray(got)]
    parity = compare({name: np.asarray(want)}, rows, tolerance)
    (output,) = parity.outputs
    assert parity.verdict == output.verdict
    return output


def test_equal_outputs_pass():
    output = check([[1.0, 2.0, 3.0]] * 2, [[1.0, 2.0, 3.0]] * 2)
    assert output.verdict == "pass"
    assert output.cosine == pytest.approx(1.0)
    assert output.max_abs == 0.0
    assert output.argmax_agreement == 1.0


def test_worst_sample_counts():
    output = check([[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]])
    assert output.verdict == "fail"
    assert output.cosine == pytest.approx(0.0)
    assert output.argmax_agreement == 0.5


def test_good_cosine_or_small_difference_is_enough():
    assert check([[1e-8, -1e-8]], [[-1e-8, 1e-8]]).verdict == "pass"
    assert check([[1000.0, 1.0]], [[1000.5, 1.0]]).verdict == "pass"


@pytest.mark.parametrize("factor", [0.0001, 0.5, 1.5, 10.0, 1e300])
def test_output_that_is_wrong_by_a_factor_fails_whatever_its_cosine(factor):
    output = check([[1.0, 2.0]], [[factor, 2.0 * factor]], Tolerance(min_cosine=0.98, max_abs=1e-3))
    assert output.cosine == pytest.approx(1.0)
    assert output.verdict == "fail"


def test_size_may_be_off_by_what_the_cosine_allows():
    # sqrt(2 * 0.02) = 0.2 of the length.
    loose = Tolerance(min_cosine=0.98, max_abs=1e-3)
    assert check([[1.0, 2.0]], [[1.19, 2.38]], loose).verdict == "pass"
    assert check([[1.0, 2.0]], [[1.21, 2.42]], loose).verdict == "fail"


def test_integers_must_be_equal():
    assert check(np.array([[1, 2]]), np.array([[1, 2]]), EXACT).verdict == "pass"
    output = check(np.array([[1, 2]]), np.array([[1, 3]]), Tolerance(0.0, 0.0))
    assert output.verdict == "fail"
    assert output.cosine is None
    assert "integers" in output.note


@pytest.mark.parametrize(("want", "got"), [(3, 4), (2**53, 2**53 + 1)])
def test_no_tolerance_excuses_a_wrong_label(want, got):
    assert check(np.array([[want]]), np.array([[got]]), Tolerance(0.0, 5.0)).verdict == "fail"


def test_booleans_must_be_equal():
    assert check(np.array([[True, False]]), np.array([[True, True]])).verdict == "fail"


def test_unsigned_integers_do_not_wrap_around():
    output = check(np.array([[0]], dtype="uint8"), np.array([[255]], dtype="uint8"))
    assert output.max_abs == 255.0


def test_zeros_have_no_cosine_and_must_be_near():
    output = check([[0.0, 0.0]], [[0.0, 0.0]])
    assert output.verdict == "pass"
    assert output.cosine is None
    assert check([[0.0, 0.0]], [[1.0, 0.0]]).verdict == "fail"
    assert check([[1.0, 0.0]], [[0.0, 0.0]]).verdict == "fail"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_number_that_became_none_fails(bad):
    assert check([[1.0, 2.0]], [[1.0, bad]]).verdict == "fail"
    assert check([[1.0, bad]], [[1.0, 2.0]]).verdict == "fail"


def test_infinity_of_the_original_itself_is_passed_over():
    assert check([[1.0, np.inf]], [[1.0, np.inf]]).verdict == "pass"


def test_missing_output_fails_and_says_so():
    parity = compare({"y": np.ones((1, 2))}, [{"z": np.ones(2)}], STRICT)
    assert parity.verdict == "fail"
    assert "no output of this name" in parity.outputs[0].note


def test_other_shape_fails_and_names_both():
    output = check([[1.0, 2.0]], [[1.0, 2.0, 3.0]])
    assert output.verdict == "fail"
    assert output.note == "shape [3], expected [2]"


def test_large_half_precision_values_do_not_overflow():
    want = np.full((1, 1000), 60000.0, dtype="float16")
    assert check(want, want).cosine == pytest.approx(1.0)


def test_one_dead_output_fails_the_whole():
    want = {"a": np.ones((1, 3)), "b": np.ones((1, 3))}
    parity = compare(want, [{"a": np.ones(3), "b": -np.ones(3)}], STRICT)
    assert [output.verdict for output in parity.outputs] == ["pass", "fail"]
    assert parity.verdict == "fail"


def test_scalar_and_empty_outputs():
    assert check([[5.0]], [[5.0]]).argmax_agreement is None
    assert check(np.ones((1, 0)), np.ones((1, 0))).verdict == "pass"


numbers = hnp.arrays(np.float32, (2, 5), elements=st.floats(-1e6, 1e6, width=32))


@given(numbers, numbers)
def test_cosine_and_difference_equal_numpy_s(want, got):
    output = check(want, got)
    wide, other = want.astype("float64"), got.astype("float64")
    assert output.max_abs == np.abs(wide - other).max()
    norms = np.linalg.norm(wide, axis=1) * np.linalg.norm(other, axis=1)
    if norms.min() > 1e-100:
        cosines = (wide * other).sum(axis=1) / norms
        assert output.cosine == pytest.approx(cosines.min(), abs=1e-9)


@given(numbers)
def test_anything_equals_itself(values):
    assert check(values, values, EXACT).verdict == "pass"


def test_no_sample_came_back():
    assert compare({"y": np.ones((2, 3))}, [], STRICT).verdict == "fail"


def test_fewer_samples_than_wanted_came_back():
    assert compare({"y": np.ones((2, 3))}, [{"y": np.ones(3)}], STRICT).verdict == "fail"
