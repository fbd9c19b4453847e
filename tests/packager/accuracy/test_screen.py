"""A candidate that a quarter of the samples rules out is not scored on the rest; any other is, on all."""

import numpy as np
import pytest

from agent.contract.manifest import TensorSpec
from packager.accuracy.dataset import EvalSet
from packager.accuracy.metric import load_metric
from packager.accuracy.paired import make_budget
from packager.accuracy.screen import Screen

COUNT = 400


@pytest.fixture
def data():
    labels = np.repeat(np.arange(10), COUNT // 10)  # sorted, as sets often are
    images = np.eye(10, dtype=np.float32)[labels]
    return EvalSet({"x": images}, labels, (TensorSpec("x", "float32", [1, 10]),))


def screened(data, wrong, budget):
    """The score, and how many samples went through the candidate, which answers wrongly where `wrong` says so."""
    metric = load_metric("top1", data)
    reference = {"y": data.arrays["x"]}
    screen = Screen(data, metric, (metric.measure(reference, data.labels, reference), reference), budget)
    seen = []

    def run(part):
        seen.append(len(part))
        labels = part.arrays["x"].argmax(1)
        return {"y": np.where(wrong(labels)[:, None], np.roll(part.arrays["x"], 1, axis=1), part.arrays["x"])}

    score = screen.score(run)
    return score, screen.drop(score), sum(seen)


def test_hopeless_candidate_is_dropped_after_a_quarter(data):
    score, drop, seen = screened(data, lambda labels: labels < 3, make_budget(1.0, None))
    assert (seen, score.n) == (COUNT // 4, COUNT // 4)
    assert drop.points == pytest.approx(30, abs=10)
    assert drop.interval[0] > 1


def test_candidate_with_a_chance_is_scored_on_all_in_their_order(data):
    score, drop, seen = screened(data, lambda labels: np.zeros(len(labels), bool), make_budget(1.0, None))
    assert (seen, score.n, score.score, drop.points) == (COUNT, COUNT, 1.0, 0.0)


def test_relative_budget_is_screened_too(data):
    assert screened(data, lambda labels: labels < 3, make_budget(None, 2.0))[2] == COUNT // 4
    assert screened(data, lambda labels: labels < 3, make_budget(None, 60.0))[2] == COUNT


def test_few_samples_are_never_screened(data):
    few = data.part(np.arange(0, COUNT, 4))
    assert screened(few, lambda labels: labels < 3, make_budget(1.0, None))[2] == len(few)
