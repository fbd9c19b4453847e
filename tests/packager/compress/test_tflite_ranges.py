"""Ranges that edgepack measures are the quantiser's own, to the last bit."""

import numpy as np
import pytest

from packager.compress.quantize.tflite_ranges import kept_ranges, true_ranges
from packager.recipe import Recipe
from packager.tflite_model import parse_model, rename, to_bytes
from tests.tflite_models import Graph, conv, dense, needs_tflite, reshape

# LiteRT warns of what the quantiser does on purpose.
pytestmark = [*needs_tflite, pytest.mark.filterwarnings("ignore:.*preserve_all_tensors:UserWarning")]


@pytest.fixture(scope="module")
def model():
    g = Graph()
    image = g.tensor("image", [1, 8, 8, 3])
    first = conv(g, image, "first", [1, 6, 6, 4], [4, 3, 3, 3])
    flat = reshape(g, first, "flat", [1, 144])
    made = parse_model(g.raw([image], [dense(g, flat, "out", 144, 5)]))
    rename(made, ["image"], ["out"])
    return to_bytes(made)


def feeds(*factors):
    """Later samples reach further: a moving average, or the first sample alone, would say something else."""
    rng = np.random.default_rng(0)
    return [{"image": (rng.normal(0, 1, (1, 8, 8, 3)) * factor).astype("float32")} for factor in factors]


def rules(raw):
    from ai_edge_quantizer import quantizer, recipe

    return quantizer.Quantizer(raw, recipe.static_wi8_ai8()).get_quantization_recipe()


def theirs(raw, samples):
    from ai_edge_quantizer import calibrator, recipe_manager
    from ai_edge_quantizer.utils.qsv_utils import min_max_update

    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(rules(raw))
    measuring = calibrator.Calibrator(raw, num_threads=1, qsv_update_func=min_max_update)
    measuring.calibrate({"serving_default": samples}, manager)
    return measuring.get_model_qsvs()


def same(ours, others):
    assert ours.keys() == others.keys()
    assert {"image", "first", "out"} <= ours.keys()
    for name, ranges in ours.items():
        assert ranges.keys() == others[name].keys()
        for end in ("min", "max"):
            np.testing.assert_array_equal(ranges[end], others[name][end])
            assert np.shape(ranges[end]) == np.shape(others[name][end])


def test_they_are_the_quantisers_own(model):
    samples = feeds(1, 3, 0.5, 7)
    found = true_ranges(model, rules(model), samples)
    same(found, theirs(model, samples))
    assert found["image"]["max"].item() == max(one["image"].max() for one in samples)


def test_they_are_measured_once_for_a_search(model, tmp_path):
    samples = feeds(1, 2)
    recipe = Recipe("int8", "int8")
    first = kept_ranges(model, rules(model), lambda _: samples, recipe, tmp_path)
    same(kept_ranges(model, rules(model), lambda _: [], recipe, tmp_path), first)


def test_what_is_no_number_widens_nothing(model):
    samples = feeds(1, 2, 1)
    samples[1]["image"][0, 0, 0, 0] = np.inf
    samples[2]["image"][0, 0, 0, 0] = np.nan
    found = true_ranges(model, rules(model), samples)
    assert np.isfinite(found["image"]["max"]).all()
    assert found["image"]["max"].item() == max(one["image"][np.isfinite(one["image"])].max() for one in samples)
