"""The order in which mixed precisions are scored, and the bisection over it."""

import math

from packager.accuracy.ladder import Rung, affordable, counts, first_enough, front, ranked
from packager.accuracy.sensitivity import Sensitivity
from packager.compress.onnx_layers import Int8Share, Layer
from packager.recipe import load_recipe


def rung(words, noise, macs):
    return Rung(words, load_recipe("int8"), noise, Int8Share(macs, macs))


def layer(name, noise, macs):
    return Sensitivity(Layer(name, "Conv", macs, macs), noise, "", noise)


def test_counts_rise_to_the_last_and_are_few():
    assert counts(0) == []
    assert counts(3) == [1, 2, 3]
    found = counts(200)
    assert found[:4] == [1, 2, 3, 4]
    assert found[-1] == 200
    assert found == sorted(set(found))
    assert len(found) < 20


def test_front_leaves_out_what_costs_more_and_is_noisier():
    rungs = [
        rung("all", 0.5, 1.0),
        rung("few", 0.1, 0.95),
        rung("few, equalised", 0.3, 0.95),
        rung("many, equalised", 0.2, 0.8),
        rung("many", 0.01, 0.85),
    ]
    assert [one.words for one in front(rungs)] == ["all", "few", "many"]


def test_first_that_is_enough_takes_the_evaluations_of_one_bisection():
    for length in (1, 2, 7, 50):
        for truth in range(length):
            asked = []
            assert first_enough(length, lambda place: asked.append(place) or place >= truth) == truth  # noqa: B023
            assert len(asked) <= math.ceil(math.log2(length + 1))
    assert first_enough(9, lambda _: False) is None
    assert first_enough(0, lambda _: True) is None


def test_bisection_cut_off_keeps_what_it_has_found():
    answers = iter([True, None])
    assert first_enough(9, lambda _: next(answers)) == 4
    assert first_enough(9, lambda _: None) is None


def test_worst_for_its_part_of_the_multiply_adds_comes_first():
    told = [layer("wide", 0.4, 900), layer("thin", 0.3, 10), layer("calm", 0.0, 90)]
    assert [one.layer.name for one in ranked(told)] == ["thin", "wide", "calm"]
    assert [one.layer.name for one in affordable(ranked(told), 0.8, 1000)] == ["thin", "calm"]
