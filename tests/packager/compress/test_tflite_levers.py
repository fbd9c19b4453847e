"""What a search may turn in TFLite's static INT8: each lever does what it says, and one with nothing to do changes no byte."""

import dataclasses

import numpy as np
import pytest

from agent.contract.errors import ConvertError
from packager.compress.quantize.clipping import BINS
from packager.compress.quantize.onnx_correction import rounded
from packager.compress.quantize.tflite import quantize_tflite
from packager.compress.quantize.tflite_correction import mean_shifts
from packager.compress.quantize.tflite_ranges import clip_ranges, histograms
from packager.compress.quantize.tflite_repairs import rescaled
from packager.recipe import Recipe
from packager.tflite_lower import levers, options_of, settled
from packager.tflite_model import constant, operator_name, parse_model, rename, text, to_bytes
from packager.tflite_run import run_tflite
from tests.tflite_models import Graph, add, conv, dense, fb, mean, needs_tflite, pool, reshape

# LiteRT warns of what the quantiser does on purpose.
pytestmark = [*needs_tflite, pytest.mark.filterwarnings("ignore:.*preserve_all_tensors:UserWarning")]
INT8 = Recipe("int8", "int8", scope="compute", io="float")
SIZE = [1, 8, 8, 4]


def images(count=12, seed=0):
    return [
        {"image": one} for one in np.random.default_rng(seed).standard_normal((count, 1, 8, 8, 3)).astype("float32")
    ]


def samples(feeds):
    return lambda most: feeds[:most]


def made(graph, image, out):
    model = parse_model(graph.raw([image], [out]))
    rename(model, ["image"], ["out"])
    return to_bytes(model)


def outputs(raw, feeds, place):
    (place / "run.tflite").write_bytes(raw)
    return np.stack([one["out"] for one in run_tflite(place / "run.tflite", feeds, ["image"], ["out"])])


def quantised(raw, feeds, place, cache=None, **changes):
    (place / "float.tflite").write_bytes(raw)
    recipe = dataclasses.replace(INT8, **changes)
    given = feeds if callable(feeds) else samples(feeds)
    told = quantize_tflite(place / "float.tflite", place / "int8.tflite", recipe, given, lambda _: None, cache)
    return (place / "int8.tflite").read_bytes(), {one.code: one.message for one in told}


def noise(raw, found, feeds, place):
    wanted = outputs(raw, feeds, place)
    return float(((outputs(found, feeds, place) - wanted) ** 2).sum() / (wanted**2).sum())


def separable(scale=None, relu=True):
    """conv, depthwise, conv, residual sum, pool, mean, dense; the depthwise layer's channels are made uneven by `scale`, and
    the next layer even again.
    """
    g = Graph()
    image = g.tensor("image", [1, 8, 8, 3])
    first = conv(g, image, "first", SIZE, [4, 3, 3, 3], padding="SAME", seed=1)
    deep = conv(g, first, "deep", SIZE, [1, 3, 3, 4], padding="SAME", depthwise=True, relu=relu, seed=2)
    point = conv(g, deep, "point", SIZE, [4, 1, 1, 4], relu=False, seed=3)
    both = add(g, point, conv(g, image, "short", SIZE, [4, 1, 1, 3], relu=False, seed=4), "both", SIZE)
    middle = mean(g, pool(g, both, "pooled", [1, 4, 4, 4]), "middle", [1, 4])
    if scale is not None:
        for name, factor in (("deep/w", scale), ("deep/b", scale), ("point/w", 1 / scale)):
            tensor = next(one for one in g.graph.tensors if text(one.name) == name)
            values = constant(g.model, tensor) * factor.astype("float32")
            g.model.buffers[tensor.buffer].data = np.frombuffer(values.tobytes(), np.uint8)
    return made(g, image, dense(g, middle, "scores", 4, 3, seed=5))


UNEVEN = np.array([0.02, 1, 8, 60])


@pytest.mark.parametrize("change", [{"equalize": True}, {"smooth": True}, {"equalize": True, "smooth": True}])
def test_uneven_channels_are_cured_and_the_function_stays(tmp_path, change):
    raw, feeds = separable(UNEVEN), images()
    changed, _ = rescaled(raw, dataclasses.replace(INT8, **change), samples(feeds), None)
    assert changed != raw
    assert noise(raw, changed, feeds, tmp_path) < 1e-9
    plain, _ = quantised(raw, feeds, tmp_path)
    cured, told = quantised(raw, feeds, tmp_path, **change)
    assert noise(raw, cured, feeds, tmp_path) < noise(raw, plain, feeds, tmp_path) / 3
    assert ("smoothed" in told, "equalised" in told) == ("smooth" in change, "equalize" in change)


def test_equalisation_reaches_over_residual_sums_pools_and_means():
    """first to deep, deep to point; point and short by their sum to the dense layer."""
    _, (told,) = rescaled(separable(), dataclasses.replace(INT8, equalize=True), samples([]), None)
    assert told.message.startswith("3 activations")


def test_relu6_becomes_relu_by_equalisation_and_is_left_alone_by_smoothing():
    model = parse_model(separable(UNEVEN))
    for op in model.subgraphs[0].operators[:2]:
        op.builtinOptions.fusedActivationFunction = fb.ActivationFunctionType.RELU6
    raw = to_bytes(model)

    def fused(change):
        made, _ = rescaled(raw, dataclasses.replace(INT8, **change), samples(images()), None)
        return [op.builtinOptions.fusedActivationFunction for op in parse_model(made).subgraphs[0].operators[:2]]

    assert fused({"equalize": True}) == [fb.ActivationFunctionType.RELU] * 2
    assert fused({"smooth": True}) == [fb.ActivationFunctionType.RELU6] * 2


def product(curve="HARD_SWISH"):
    """dense, a curve that does not scale, dense; the channels between are uneven, the second product even again."""
    g = Graph()
    image = g.tensor("image", [1, 8, 8, 3])
    first = dense(g, reshape(g, image, "flat", [1, 192]), "first", 192, 4, seed=1)
    middle = g.op(curve, [first], [g.tensor("middle", [1, 4])])
    dense(g, middle, "last", 4, 3, seed=2)
    for name, factor in (("first/w", UNEVEN[:, None]), ("first/b", UNEVEN), ("last/w", 1 / UNEVEN)):
        tensor = next(one for one in g.graph.tensors if text(one.name) == name)
        values = constant(g.model, tensor) * factor.astype("float32")
        g.model.buffers[tensor.buffer].data = np.frombuffer(values.astype("float32").tobytes(), np.uint8)
    return made(g, image, int(g.graph.operators[-1].outputs[0]))


def test_what_a_product_reads_behind_a_curve_is_narrowed_by_a_multiplication(tmp_path):
    raw, feeds = product(), images()
    changed, (told,) = rescaled(raw, dataclasses.replace(INT8, smooth=True), samples(feeds), None)
    assert noise(raw, changed, feeds, tmp_path) < 1e-9
    assert told.message.endswith("1 by a multiplication before matrix products")
    kinds = [operator_name(parse_model(changed), op) for op in parse_model(changed).subgraphs[0].operators]
    assert kinds == ["RESHAPE", "FULLY_CONNECTED", "HARD_SWISH", "MUL", "FULLY_CONNECTED"]
    plain, _ = quantised(raw, feeds, tmp_path)
    cured, _ = quantised(raw, feeds, tmp_path, smooth=True)
    assert noise(raw, cured, feeds, tmp_path) < noise(raw, plain, feeds, tmp_path)
    graph = parse_model(cured).subgraphs[0]
    (factor,) = (op for op in graph.operators if operator_name(parse_model(cured), op) == "MUL")
    assert graph.tensors[int(factor.inputs[1])].type == fb.TensorType.FLOAT32


def test_where_all_is_in_int8_no_multiplication_is_put_in(tmp_path):
    """It would be rounded itself, with one scale for numbers that differ by thousands."""
    raw = product()
    recipe = dataclasses.replace(INT8, smooth=True, scope="all")
    assert rescaled(raw, recipe, samples(images()), None)[0] == raw


def test_biases_that_layers_share_are_parted(tmp_path):
    model = parse_model(separable(UNEVEN))
    graph = model.subgraphs[0]
    graph.operators[1].inputs = [*graph.operators[1].inputs[:2], graph.operators[0].inputs[2]]
    raw, feeds = to_bytes(model), images()
    changed, _ = rescaled(raw, dataclasses.replace(INT8, equalize=True), samples(feeds), None)
    assert noise(raw, changed, feeds, tmp_path) < 1e-9


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_lone_outlier_is_clipped(tmp_path, method):
    raw, feeds = separable(), images(40)
    wild = [{"image": one["image"].copy()} for one in feeds]
    wild[7]["image"][0, 3, 3, 1] = 60
    plain, _ = quantised(raw, wild, tmp_path)
    cut, _ = quantised(raw, wild, tmp_path, method=method, percentile=99.9)
    assert noise(raw, cut, feeds, tmp_path) < noise(raw, plain, feeds, tmp_path) / 2


def test_long_tails_are_clipped_where_that_errs_least():
    values = np.random.default_rng(0).laplace(size=300_000)
    true = {"image": {"min": values.min().reshape(1, 1), "max": values.max().reshape(1, 1)}}
    counts = {"image": np.histogram(values, BINS)[0]}

    def error(ends):
        low, high = (ends[key].item() for key in ("min", "max"))
        step = (high - low) / 255
        return ((np.clip(np.round(values / step) * step, low, high) - values) ** 2).mean()

    drawn = clip_ranges(true, counts, dataclasses.replace(INT8, method="mse"))["image"]
    assert drawn["min"].shape == (1, 1)
    assert error(drawn) < 0.8 * error(true["image"])


def test_histograms_are_of_what_the_first_graph_computes():
    raw, feeds = separable(), images()
    ranges = {name: {"min": np.array([[-1.0]]), "max": np.array([[1.0]])} for name in ("image", "first", "first/w")}
    counts = histograms(raw, ranges, samples(feeds))
    assert counts.keys() == {"image", "first"}
    assert counts["image"].sum() == sum((abs(one["image"]) <= 1).sum() for one in feeds)


def test_shift_is_what_rounding_the_weights_adds_to_the_mean(tmp_path):
    raw, feeds = separable(), images()
    recipe = dataclasses.replace(INT8, per_channel=False)
    shift = mean_shifts(parse_model(raw), recipe, samples(feeds))["out"]
    model = parse_model(raw)
    weights = next(one for one in model.subgraphs[0].tensors if text(one.name) == "scores/w")
    coarse = rounded(constant(model, weights), dataclasses.replace(recipe, weight_type="int8"), axis=0)
    model.buffers[weights.buffer].data = np.frombuffer(coarse.astype("float32").tobytes(), np.uint8)
    added = outputs(to_bytes(model), feeds, tmp_path) - outputs(raw, feeds, tmp_path)
    np.testing.assert_allclose(shift, added.mean(axis=(0, 1)), atol=1e-6)
    assert abs(shift).max() > 1e-4


def test_shift_of_rounded_weights_is_taken_back(tmp_path):
    """With one scale for all, a wide channel leaves the others' weights few steps, which shifts what bright images give."""
    g = Graph()
    image = g.tensor("image", [1, 8, 8, 3])
    out = conv(g, image, "map", SIZE, [4, 3, 3, 3], padding="SAME", relu=False)
    weights = next(one for one in g.graph.tensors if text(one.name) == "map/w")
    wide = constant(g.model, weights) * np.array([1, 1, 1, 40], "float32").reshape(4, 1, 1, 1)
    g.model.buffers[weights.buffer].data = np.frombuffer(wide.tobytes(), np.uint8)
    raw, feeds = made(g, image, out), [{"image": one["image"] + 2} for one in images(40)]
    wanted = outputs(raw, feeds, tmp_path).mean(axis=(0, 1, 2, 3))[:3]
    plain, _ = quantised(raw, feeds, tmp_path, per_channel=False)
    better, told = quantised(raw, feeds, tmp_path, per_channel=False, bias_correction=True)
    off = [abs(outputs(one, feeds, tmp_path).mean(axis=(0, 1, 2, 3))[:3] - wanted).mean() for one in (better, plain)]
    assert off[0] < off[1] / 4
    assert told["biases-corrected"].startswith("the biases of 1 layers")


def test_layer_in_float_keeps_its_biases(tmp_path):
    raw, feeds = separable(UNEVEN), images()
    found, told = quantised(raw, feeds, tmp_path, bias_correction=True, exclude=("point",))
    held = {text(one.name): one for one in parse_model(found).subgraphs[0].tensors}
    before = {text(one.name): one for one in parse_model(raw).subgraphs[0].tensors}
    values = [constant(parse_model(model), one["point/b"]) for model, one in ((found, held), (raw, before))]
    np.testing.assert_array_equal(*values)
    assert told["biases-corrected"].startswith("the biases of 4 layers")


@pytest.mark.parametrize("change", [{"equalize": True}, {"smooth": True}, {"bias_correction": True}])
def test_lever_with_nothing_to_do_changes_no_byte(tmp_path, change):
    g = Graph()
    image = g.tensor("image", [1, 8, 8, 3])
    weights = g.tensor("w", [2, 192], np.random.default_rng(0).choice([-1, 1], (2, 192)))
    ends = [reshape(g, image, "flat", [1, 192]), weights], [g.tensor("out", [1, 2])]
    raw = made(g, image, g.op("FULLY_CONNECTED", *ends, fb.FullyConnectedOptionsT(), "FullyConnectedOptions"))
    plain, _ = quantised(raw, images(), tmp_path)
    assert quantised(raw, images(), tmp_path, **change)[0] == plain


def test_what_was_measured_serves_the_next_choice_of_layers(tmp_path):
    feeds, calls = images(), []

    def counted(most):
        calls.append(most)
        return feeds

    given = {"method": "mse", "equalize": True, "smooth": True, "bias_correction": True, "cache": tmp_path}
    first, _ = quantised(separable(UNEVEN), counted, tmp_path, **given)
    seen = len(calls)
    assert seen == 4  # channels, ranges, histograms, means
    assert quantised(separable(UNEVEN), counted, tmp_path, **given)[0] == first
    assert quantised(separable(UNEVEN), counted, tmp_path, exclude=("point",), **given)[0] != first
    assert len(calls) == seen


def test_levers_are_those_that_the_recipe_has_left_out_and_are_told():
    every = [words for words, _ in levers(INT8)]
    assert "cross-layer equalisation" in every
    turned = dataclasses.replace(INT8, method="percentile", equalize=True, smooth=True, bias_correction=True)
    assert not {"cross-layer equalisation", "smoothed activations", "bias correction"} & {
        one for one, _ in levers(turned)
    }
    told = options_of(turned)
    assert told["equalize"] is told["smooth"] is told["bias_correction"] is True
    assert told["percentile"] == turned.percentile
    assert "equalize" not in options_of(INT8)


@pytest.mark.parametrize("change", [{"float_products": True}, {"smooth": True, "per_channel": False}])
def test_what_tflite_cannot_do_is_refused(change):
    with pytest.raises(ConvertError, match=r"TFLite|per channel"):
        settled(dataclasses.replace(INT8, **change), "compute")
