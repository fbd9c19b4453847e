"""Gates fail only on what is shown, and every bad spec is told."""

import pytest

from agent.contract.errors import UsageError
from packager.compare import gate
from packager.compare.ratio import Interval

ONE = Interval(1.0, 0.99, 1.01)


def outcomes(spec, ratio=ONE, sizes=(100, 100), scores=None):
    return [one.outcome for one in gate.judge(gate.parse(spec), ratio, sizes, scores)]


@pytest.mark.parametrize(
    ("low", "high", "outcome"), [(1.06, 1.1, "failed"), (1.0, 1.05, "passed"), (1.04, 1.06, "undecided")]
)
def test_slower(low, high, outcome):
    assert outcomes("slower:5%", Interval(1.05, low, high)) == [outcome]


def test_size_and_accuracy():
    assert outcomes("size:0%,accuracy:1", sizes=(100, 100), scores=(0.9, 0.89)) == ["passed", "passed"]
    assert outcomes("size:0%, accuracy:1", sizes=(100, 101), scores=(0.9, 0.88)) == ["failed", "failed"]


@pytest.mark.parametrize("spec", ["", "slower", "slower:5", "accuracy:1%", "slower:-5%", "fast:5%", "slower:5%,"])
def test_bad_gates_are_told(spec):
    with pytest.raises(UsageError):
        gate.parse(spec)


def test_gate_that_nothing_is_measured_for_is_refused_before_measuring():
    with pytest.raises(UsageError, match="no accuracy"):
        gate.check_measured(gate.parse("slower:5%,accuracy:1"))
