"""The order in which mixed precisions are scored, and the bisection over it."""

import dataclasses
import math

import pytest

from packager.accuracy.ladder import Rung, affordable, first_enough, foreseen, front, ranked
from packager.accuracy.sensitivity import Sensitivity
from packager.compress.onnx_layers import Int8Share, Layer
from packager.recipe import load_recipe


def rung(words, noise, macs):
    return Rung(words, load_recipe("int8"), noise, Int8Share(macs, macs))


def layer(name, noise, macs):
    return Sensitivity(Layer(name, "Conv", macs, macs), noise, "", noise)


def test_layers_in_float_take_their_noise_and_their_share_with_them():
    told = [layer("calm", 0.1, 600), layer("loud", 0.7, 100), layer("wide", 0.2, 300)]
    whole = rung("all in INT8", 0.5, 1.0)
    one, two = foreseen(whole, told, ranked(told)[:2])
    assert one.recipe.exclude == ("loud",)
    assert one.noise == pytest.approx(0.5 * 0.3)
    assert one.share.macs == pytest.approx(0.9)
    assert two.recipe.exclude == ("loud", "wide")
    assert two.noise == pytest.approx(0.5 * 0.1)
    assert two.share.macs == pytest.approx(0.6)
    assert (one.words, two.words) == ("1 layer in float", "2 layers in float")


def test_what_a_root_leaves_in_float_already_stays_there():
    recipe = dataclasses.replace(load_recipe("int8"), exclude=("broken",), equalize=True)
    whole = Rung("all in INT8", recipe, 0.5, Int8Share(0.9, 0.8))
    (found,) = foreseen(whole, [layer("loud", 0.7, 100), layer("calm", 0.1, 900)], [layer("loud", 0.7, 100)])
    assert found.recipe.exclude == ("broken", "loud")
    assert found.share.macs == pytest.approx(0.8)
    assert found.words == "1 layer in float, equalised"


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
