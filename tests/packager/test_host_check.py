"""What the host's own comparison lets through, and how far off a device may then be."""

import numpy as np
import pytest

from agent.contract import parity
from agent.contract.errors import BudgetError, ConvertError
from agent.contract.manifest import RuntimeNeed, Tolerance
from packager.bundle.golden import GoldenVectors
from packager.host_check import conversion_check, host_check
from packager.protocols import Terms

TIGHT = Tolerance(min_cosine=0.98, max_abs=1e-3)


def terms(refuse_far=False):
    return Terms(need=RuntimeNeed(name="onnxruntime", min_version="1.17"), tolerance=TIGHT, refuse_far=refuse_far)


def off_by(noise, dtype=np.float32):
    """The original's golden outputs, and a lowered model's that are `noise` of their length away."""
    rng = np.random.default_rng(0)
    right = rng.normal(size=(4, 64)).astype(dtype)
    wrong = right + (noise * rng.normal(size=right.shape)).astype(dtype)
    golden = GoldenVectors(inputs={"x": right}, outputs={"y": right}, made_from="random")
    return golden, [{"y": row} for row in wrong]


def test_what_agrees_leaves_the_terms_alone():
    golden, rows = off_by(0.01)
    checked = host_check(rows, golden, terms(), "int8", accepted=False)
    assert checked.findings == ()
    assert checked.terms.tolerance == TIGHT


def test_a_converted_model_must_be_the_original_before_it_is_quantised():
    golden, rows = off_by(0.001)
    conversion_check(rows, golden)
    golden, rows = off_by(0.3)
    with pytest.raises(ConvertError) as caught:
        conversion_check(rows, golden)
    assert caught.value.code == "parity"
    assert "y: cosine 0.9" in caught.value.what
    assert "--no-check" in caught.value.fix


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_floats_that_disagree_are_refused_whatever_the_user_accepts(precision):
    golden, rows = off_by(0.5)
    with pytest.raises(ConvertError) as caught:
        host_check(rows, golden, terms(), precision, accepted=True)
    assert caught.value.code == "parity"


def test_a_quantised_model_that_is_far_off_says_so_and_keeps_the_tolerance():
    golden, rows = off_by(0.5)
    checked = host_check(rows, golden, terms(), "int8", accepted=False)
    assert [one.code for one in checked.findings] == ["host-parity"]
    assert checked.terms.tolerance == TIGHT


def test_a_runtime_whose_kernels_are_known_to_be_wrong_is_refused():
    golden, rows = off_by(0.5)
    with pytest.raises(BudgetError, match="cosine") as caught:
        host_check(rows, golden, terms(refuse_far=True), "int8", accepted=False)
    assert caught.value.exit_code == 6
    assert "--allow-drop" in caught.value.fix


@pytest.mark.parametrize("refuse_far", [True, False])
def test_where_the_loss_was_accepted_a_device_that_computes_as_the_host_did_passes(refuse_far):
    golden, rows = off_by(0.5)
    checked = host_check(rows, golden, terms(refuse_far), "int8", accepted=True)
    assert [one.code for one in checked.findings] == ["host-parity"]
    wide = checked.terms.tolerance
    assert wide.min_cosine < TIGHT.min_cosine
    assert parity.compare(dict(golden.outputs), rows, wide).verdict == "pass"
    noise = np.random.default_rng(1).normal(size=(4, 64)).astype(np.float32)
    assert parity.compare(dict(golden.outputs), [{"y": row} for row in noise], wide).verdict == "fail"


def test_whole_numbers_that_differ_are_not_a_matter_of_tolerance():
    golden, rows = off_by(0)
    rows = [{"y": row["y"].astype(np.int64) + 1} for row in rows]
    golden = GoldenVectors(golden.inputs, {"y": golden.outputs["y"].astype(np.int64)}, "random")
    checked = host_check(rows, golden, terms(), "int8", accepted=True)
    assert checked.terms.tolerance == TIGHT
    assert "will not activate" in checked.findings[0].advice
