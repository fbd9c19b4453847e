"""A study's verdicts in words, its recommendation, and its page."""

import dataclasses
from html.parser import HTMLParser
from pathlib import Path

from packager.accuracy.paired import Budget
from packager.profile import load_profile
from packager.recipe import load_recipe
from packager.study.page import render
from packager.study.plan import plan
from packager.study.row import Accuracy, Latency, Row, advice, compare, recommended, to_measure
from packager.study.run import Study, StudyOptions

ORIGINAL = Row(
    "float", "onnxruntime", "fp32", 1000, 1100, Latency("ms", 1.0, 0.98, 1.02, 600), Accuracy(0.9, 500), "pass"
)


def row(label, size, p50, drop=0.0, parity="pass"):
    latency = Latency("ms", p50, p50 * 0.98, p50 * 1.02, 600)
    return Row(label, "onnxruntime", "x", size, size + 100, latency, Accuracy(0.9 - drop / 100, 500, drop), parity)


def verdict(one):
    return compare(one, ORIGINAL, Budget(), "this CPU")


def test_smaller_and_slower_is_not_worth_it():
    found = verdict(row("INT8", 260, 1.06))
    assert found.verdict == "INT8: 74% smaller, 1.06x slower on this CPU, no accuracy lost: not worth it here"
    assert not found.worth


def test_faster_within_the_budget_is():
    found = verdict(row("INT8", 260, 0.5, drop=0.4))
    assert found.verdict == "INT8: 74% smaller, 2.00x faster on this CPU, 0.4 points lost: worth it here"
    assert found.worth


def test_out_of_the_budget_and_wrong_outputs_are_not():
    assert verdict(row("INT8", 260, 0.5, drop=3.0)).verdict.endswith("out of the budget of 1 point")
    assert verdict(row("INT8", 260, 0.5, parity="fail")).verdict.endswith("not to be used")


def test_an_error_is_told_in_percent():
    original = dataclasses.replace(ORIGINAL, accuracy=Accuracy(-0.02, 500))
    worse = dataclasses.replace(row("INT8", 260, 0.5), accuracy=Accuracy(-0.0212, 500, 0.12, 0.06, 0.18, 50.0))
    budget = Budget(None, 5.0, default=True)
    found = compare(worse, original, budget, "this CPU")
    assert "6.0 % lost (3.0 to 9.0): out of the budget of 5 % of the score (the default)" in found.verdict
    assert compare(worse, original, Budget(None, 7.0), "this CPU").worth


def test_a_difference_that_cannot_be_told_is_none():
    found = verdict(row("FP16", 500, 1.01))
    assert "no measurable difference in speed" in found.verdict
    assert found.verdict.endswith("worth it for its size")


def test_a_failure_keeps_its_row():
    found = verdict(Row("TensorRT", "tensorrt", "fp16", error="no operator <If>"))
    assert found.verdict == "TensorRT: failed: no operator <If>"
    assert found.document()["error"] == "no operator <If>"


def test_the_fastest_of_the_worthy_is_recommended():
    rows = [verdict(one) for one in (ORIGINAL, row("a", 500, 0.8), row("b", 500, 0.5), row("c", 100, 0.1, drop=9))]
    best = recommended(rows)
    assert best is not None
    assert best.row.label == "b"
    assert recommended(rows[:1]) is None


def test_the_page_holds_every_row_and_fetches_nothing():
    rows = [ORIGINAL, row("INT8", 260, 0.5), Row("TensorRT", "tensorrt", "fp16", error="<If>")]
    options = StudyOptions("net.onnx", "linux-x86-64", "c.npz", "e.npz")
    text = render(Study(options, "net", "top1", 500, [verdict(one) for one in rows], "a <board>"))
    tags = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append((tag, dict(attributes)))
    parser.feed(text)
    assert sum(tag == "tr" for tag, _ in tags) == 4  # the head, too
    assert not any(
        tag in ("script", "link", "img") or "src" in attributes or "href" in attributes for tag, attributes in tags
    )
    assert "&lt;If&gt;" in text
    assert "a &lt;board&gt;" in text


def test_the_order_and_the_pruning_recipes(tmp_path: Path):
    profile = load_profile("linux-x86-64")
    tuned = plan(profile, tmp_path, train="t.py:batches", epochs=2, sparsity=0.5, trainable=True)
    assert [one.recipe for one in tuned[:4]] == ["fp32", "fp16", "int8-dynamic", "int8"]
    recipe = load_recipe(tuned[5].recipe)
    assert recipe.steps[0]["method"] == "structured"
    assert recipe.steps[0]["training"]["data"] == "t.py:batches"
    bare = plan(profile, tmp_path, train=None, epochs=1, sparsity=0.5, trainable=True)
    assert bare[4].note == "one shot, no fine-tuning"
    assert load_recipe(bare[4].recipe).steps[0]["training"] is None
    assert dataclasses.asdict(bare[0])["runtime"] == "onnxruntime"


def test_without_a_device_it_says_what_to_measure():
    small = dataclasses.replace(row("INT8", 260, 1.0), latency=None, unmeasured="give --device")
    lossy = dataclasses.replace(row("pruned", 200, 1.0, drop=9), latency=None)
    rows = [verdict(one) for one in (ORIGINAL, small, lossy)]
    assert to_measure(rows) == ["INT8"]
    assert advice(rows).startswith("measure first: INT8 (")
    assert advice(rows[:1]) == "take: the original; nothing here was worth it"
