"""Metrics, their intervals, paired drops and budgets."""

import warnings

import numpy as np
import pytest

from agent.contract.errors import ConvertError, UsageError
from agent.contract.manifest import TensorSpec
from packager.accuracy import intervals
from packager.accuracy.dataset import EvalSet
from packager.accuracy.metric import Metric, Score, fall, load_metric, number
from packager.accuracy.paired import Budget, budget_for, make_budget, paired_drop, settled

SPECS = (TensorSpec("x", "float32", [1, 2]),)


def data(n=4, labels=None):
    return EvalSet({"x": np.zeros((n, 2), np.float32)}, labels, SPECS, "eval.npz")


def test_top1_and_top5_count_the_right_classes():
    values = np.eye(8, dtype=np.float32)[[0, 1, 2, 3]] + np.arange(8) * 0.01
    labels = np.array([0, 1, 2, 7])
    top1 = load_metric("top1", data(labels=labels)).measure({"y": values}, labels)
    assert (top1.score, top1.n) == (0.75, 4)
    assert load_metric("top5", data(labels=labels)).measure({"y": values}, labels).score == 1.0


def test_without_labels_the_metric_is_agreement_with_the_original():
    metric = load_metric(None, data())
    first, second = np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)[[0, 1, 0]]
    assert metric.name == "agreement"
    assert metric.measure({"y": second}, None, {"y": first}).score == pytest.approx(2 / 3)


def test_mse_is_negated_and_cosine_of_the_same_is_one():
    labels = np.ones((4, 3), np.float32)
    assert load_metric("mse", data(labels=labels)).measure({"y": labels * 3}, labels).score == -4.0
    assert load_metric("cosine", data(labels=labels)).measure({"y": labels * 3}, labels).score == pytest.approx(1.0)


def test_class_numbers_beyond_the_model_are_refused():
    labels = np.array([0, 1, 2, 9])
    with pytest.raises(UsageError, match="reach from 0 to 9"):
        load_metric("top1", data(labels=labels)).measure({"y": np.eye(4)}, labels)


def test_nan_outputs_are_no_score():
    labels = np.array([0, 1, 2, 3])
    values = np.eye(4)
    values[2, 2] = np.nan
    with pytest.raises(ConvertError, match="NaN or infinity in 1 of 4"):
        load_metric("top1", data(labels=labels)).measure({"y": values}, labels)


@pytest.mark.parametrize(
    ("returned", "told"),
    [("float('nan')", "returned nan"), ("'0.9'", "a str"), ("None", "NoneType"), ("[1, 2]", "list")],
)
def test_metric_that_returns_nan_or_a_string(tmp_path, returned, told):
    (tmp_path / "m.py").write_text(f"def score(outputs, labels):\n    return {returned}\n")
    metric = load_metric(f"{tmp_path}/m.py:score", data())
    with pytest.raises(UsageError, match="the metric returned") as caught:
        metric.measure({"y": np.eye(4)}, None)
    assert told in str(caught.value)


def test_metric_that_raises_names_its_file(tmp_path):
    (tmp_path / "m.py").write_text("def score(outputs, labels):\n    return outputs['nope']\n")
    with pytest.raises(UsageError, match="the metric raised KeyError") as caught:
        load_metric(f"{tmp_path}/m.py:score", data()).measure({"y": np.eye(4)}, None)
    assert "m.py:score" in caught.value.where
    assert caught.value.expected == "a float for the outputs y [4, 4]"


def test_unknown_metric_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'top1'"):
        load_metric("top_1", data())


def test_users_metric_that_is_a_mean_is_scored_sample_by_sample(tmp_path):
    (tmp_path / "m.py").write_text(
        "def score(outputs, labels):\n    return float((outputs['y'].argmax(1) == labels).mean())\n"
    )
    labels = np.arange(4)
    found = load_metric(f"{tmp_path}/m.py:score", data(labels=labels)).measure({"y": np.eye(4)[[0, 1, 2, 0]]}, labels)
    assert found.rows.tolist() == [1, 1, 1, 0]
    assert found.method == "Wilson"


def test_users_metric_of_the_order_keeps_its_score_inside_the_interval(tmp_path):
    (tmp_path / "m.py").write_text(
        "def score(outputs, labels):\n    half = len(labels) // 2\n"
        "    alike = outputs['y'][:half] @ outputs['y'][half:].T\n"
        "    return float((alike.argmax(1) == range(half)).mean()) if half else 0.0\n"
    )
    vectors = np.random.default_rng(0).standard_normal((50, 16))
    found = load_metric(f"{tmp_path}/m.py:score", data(100, np.zeros(100))).measure(
        {"y": np.concatenate([vectors, vectors])}, np.zeros(100)
    )
    assert found.rows is None
    assert found.score == 1.0
    assert found.interval[0] <= 1.0 <= found.interval[1]


def test_wilson_holds_what_the_textbook_says():
    low, high = intervals.wilson(8, 10)
    assert (round(low, 3), round(high, 3)) == (0.490, 0.943)


def test_eval_set_of_10_samples_says_what_the_interval_is():
    labels = np.arange(10)
    found = load_metric("top1", data(10, labels)).measure({"y": np.eye(10)}, labels)
    (finding,) = found.findings()
    assert finding.code == "few-eval-samples"
    assert "10 samples: the true top1 lies between 0.722 and 1" in finding.message


def score(rows):
    rows = np.array(rows, float)
    return Score("top1", float(rows.mean()), len(rows), None, "", rows)


def test_samples_that_all_agree_still_leave_an_interval():
    drop = paired_drop(score([1] * 98 + [0] * 2), score([1] * 98 + [0] * 2))
    assert drop.points == 0
    assert drop.interval[0] < -1 < 1 < drop.interval[1]


def test_paired_interval_is_narrower_than_the_scores_own():
    rows = np.random.default_rng(0).random(1000) < 0.7
    after = rows.copy()
    after[:5] = ~after[:5]
    drop = paired_drop(score(rows), score(after))
    low, high = intervals.wilson(rows.sum(), 1000)
    assert drop.interval[1] - drop.interval[0] < 0.3 * 100 * (high - low)


def test_a_drop_too_small_for_two_digits_is_told_all_the_same():
    drop = paired_drop(Score("cosine", 1.0, 9, None, ""), Score("cosine", 0.99998, 9, None, ""))
    assert str(drop) == "+0.002 points"
    assert fall(1.0, 0.99998) == "1.0000 to 0.99998"
    assert fall(0.9, 0.85) == "0.9000 to 0.8500"
    assert fall(0.5, 0.5) == "0.5000 to 0.5000"
    assert str(paired_drop(score([1, 1]), score([1, 1]))).startswith("0 points")


def test_budgets_in_points_and_in_percent():
    drop = paired_drop(Score("m", 0.5, 9, None, ""), Score("m", 0.49, 9, None, ""))
    assert Budget(1.5).met(drop)
    assert not Budget(0.5).met(drop)
    assert Budget(None, 3.0).met(drop)
    assert not Budget(None, 1.0).met(drop)
    assert make_budget(None, None).points == 1.0
    with pytest.raises(UsageError, match="exclude each other"):
        make_budget(1.0, 1.0)
    with pytest.raises(UsageError, match="0 or more"):
        make_budget(-1.0, None)


def test_percent_of_a_score_of_zero():
    with pytest.raises(UsageError, match="no percentage"):
        Budget(None, 1.0).met(paired_drop(Score("m", 0.0, 9, None, ""), Score("m", -1.0, 9, None, "")))


def test_an_error_is_budgeted_in_percent_and_says_when_nobody_asked():
    mse = load_metric("mse", data(labels=np.ones((4, 3), np.float32)))
    budget = budget_for(mse, None, None, labelled=True)
    assert str(budget) == "5 % of the score (the default)"
    labels = np.ones((4, 3), np.float32)
    before, after = (mse.measure({"y": labels * size}, labels) for size in (1.1, 1.102))
    drop = paired_drop(before, after)
    assert budget.told(drop).startswith("+4.04 % (")
    assert budget.met(drop)
    assert not budget_for(mse, None, 4.0, labelled=True).met(drop)


def test_points_of_an_error_and_percent_of_none_are_refused():
    mse = load_metric("mse", data())
    with pytest.raises(UsageError, match="--max-drop counts points") as caught:
        budget_for(mse, 1.0, None, labelled=True)
    assert "--max-drop-relative" in caught.value.fix
    for relative in (None, 3.0):
        with pytest.raises(UsageError, match="off by 0 from themselves") as caught:
            budget_for(mse, None, relative, labelled=False)
        assert "cosine" in caught.value.fix
    cosine = load_metric("cosine", data())
    assert str(budget_for(cosine, None, None, labelled=False)) == "1 point"


def test_a_default_of_points_gives_way_to_percent_where_the_score_is_an_error():
    own = Metric("m.py:score", whole=lambda _outputs, _labels: 0.0)
    assert settled(make_budget(None, None), own, Score("m", -3.0, 9, None, "")).relative == 5.0
    assert settled(make_budget(None, None), own, Score("m", 0.9, 9, None, "")).points == 1.0
    assert settled(make_budget(2.0, None), own, Score("m", -3.0, 9, None, "")).points == 2.0
    with pytest.raises(UsageError, match="scores 0"):
        settled(make_budget(None, 2.0), own, Score("m", 0.0, 9, None, ""))


def test_scores_are_written_with_digits_that_count():
    assert [number(one) for one in (0.921, 1.0, 0.0, -0.0012345, 123.456)] == [
        "0.9210",
        "1.0000",
        "0.0000",
        "-0.001234",
        "123.5",
    ]


F1 = """
def score(outputs, labels):
    heard = outputs["out"] > 0.5
    return float(2 * (heard & labels).sum() / max(1, heard.sum() + labels.sum()))
"""


def test_a_metric_that_is_no_mean_has_a_paired_interval_by_the_same_draws(tmp_path):
    (tmp_path / "m.py").write_text(F1)
    draw = np.random.default_rng(0)
    truth = draw.random((120, 8)) < 0.2
    before = np.where(draw.random(truth.shape) < 0.1, ~truth, truth).astype(np.float32)
    after = np.where(draw.random(truth.shape) < 0.01, 1 - before, before)
    metric = load_metric(f"{tmp_path / 'm.py'}:score", data(120, truth))
    first, second = metric.measure({"out": before}, truth), metric.measure({"out": after}, truth)
    assert first.rows is None
    drop = paired_drop(first, second)
    low, high = drop.interval
    assert low <= drop.points <= high
    assert 0 < high - low < 100 * (first.interval[1] - first.interval[0])
    assert paired_drop(first, first).interval == (0, 0)


def test_a_metric_that_is_tried_on_one_sample_does_not_warn(tmp_path):
    (tmp_path / "m.py").write_text(
        "import numpy as np\ndef score(outputs, labels):\n    half = len(labels) // 2\n"
        "    return float(outputs['out'][:half].mean())\n"
    )
    labels = np.zeros(40)
    metric = load_metric(f"{tmp_path / 'm.py'}:score", data(40, labels))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score = metric.measure({"out": np.linspace(0, 1, 40)}, labels)
    assert score.rows is None
    assert 0 < score.score < 0.5
