"""Which operators INT8 takes on a CPU: those that multiply, what they pass on, and what stands between them on all sides."""

import numpy as np
import pytest

from packager.compress.quantize.tflite import COMPUTE, chosen_operators, float_findings
from packager.pipeline import build
from packager.recipe import NAMED
from packager.tflite_model import parse_model
from tests.tflite_models import Graph, add, averaging, conv, dense, fb, mean, needs_tflite, pool, reshape, softmax

pytestmark = needs_tflite
SIZE = [1, 8, 8, 4]


def chosen(graph, image, out, exclude=()):
    return [name for name, _ in chosen_operators(parse_model(graph.raw([image], [out])), COMPUTE, exclude)]


def step(graph, source, name, seed=0):
    return conv(graph, source, name, SIZE, [4, 3, 3, 4], padding="SAME", seed=seed)


def test_residual_sums_of_a_convolutional_net_one_after_the_other():
    g = Graph()
    image = g.tensor("image", SIZE)
    first = step(g, image, "first")
    one = add(g, step(g, first, "second"), first, "one", SIZE)
    two = add(g, step(g, one, "third"), one, "two", SIZE)
    out = dense(g, mean(g, step(g, two, "fourth"), "middle", [1, 4]), "out", 4, 3)
    assert chosen(g, image, out).count("ADD") == 2
    assert "MEAN" in chosen(g, image, out)


def test_sum_that_a_float_operator_uses_too_stays_and_takes_the_one_before_it_along():
    g = Graph()
    image = g.tensor("image", SIZE)
    first = step(g, image, "first")
    one = add(g, step(g, first, "second"), first, "one", SIZE)
    two = add(g, step(g, one, "third"), one, "two", SIZE)
    odd = softmax(g, two, "odd", SIZE)
    out = step(g, add(g, odd, two, "three", SIZE), "out")
    assert "ADD" not in chosen(g, image, out)


def test_sum_and_pool_beside_a_layer_that_is_left_in_float_stay_there_too():
    g = Graph()
    image = g.tensor("image", SIZE)
    first = step(g, image, "first")
    pooled = pool(g, step(g, first, "second"), "pooled", [1, 4, 4, 4])
    short = conv(g, first, "third", [1, 4, 4, 4], [4, 1, 1, 4], stride=2)
    both = add(g, pooled, short, "both", [1, 4, 4, 4])
    out = conv(g, both, "out", [1, 4, 4, 4], [4, 1, 1, 4])
    assert chosen(g, image, out) == ["CONV_2D", "CONV_2D", "MAX_POOL_2D", "CONV_2D", "ADD", "CONV_2D"]
    assert chosen(g, image, out, ["out"]) == ["CONV_2D", "CONV_2D", "MAX_POOL_2D", "CONV_2D"]
    assert chosen(g, image, out, ["second", "third"]) == ["CONV_2D", "CONV_2D"]


def gated(kind):
    """A layer's values times `kind` of them, as SiLU is exported, between two layers."""
    g = Graph()
    image = g.tensor("image", SIZE)
    first = step(g, image, "first")
    gate = g.op(kind, [first], [g.tensor("gate", SIZE)])
    product = g.op("MUL", [first, gate], [g.tensor("product", SIZE)], fb.MulOptionsT(), "MulOptions")
    return g, image, step(g, product, "out")


def test_silu_between_two_layers_is_taken_whole():
    assert chosen(*gated("LOGISTIC")) == ["CONV_2D", "LOGISTIC", "MUL", "CONV_2D"]
    assert chosen(*gated("LOGISTIC"), exclude=["first"]) == ["CONV_2D"]


def test_what_xnnpack_has_in_float_only_stays_in_float():
    assert chosen(*gated("HARD_SWISH")) == ["CONV_2D", "CONV_2D"]


def test_sum_with_the_models_own_input_stays_in_float():
    g = Graph()
    image = g.tensor("image", SIZE)
    both = add(g, step(g, image, "first"), image, "both", SIZE)
    assert chosen(g, image, step(g, both, "out")) == ["CONV_2D", "CONV_2D"]


def test_mean_that_is_the_answer_stays_in_float():
    g = Graph()
    image = g.tensor("image", SIZE)
    out = mean(g, step(g, image, "first"), "out", [1, 4])
    assert chosen(g, image, out) == ["CONV_2D"]


def test_reshapes_without_a_neighbour_that_multiplies_stay():
    g = Graph()
    image = g.tensor("image", SIZE)
    out = softmax(g, reshape(g, reshape(g, image, "a", [1, 256]), "b", [4, 64]), "out", [4, 64])
    assert chosen(g, image, out) == []


def test_pool_between_two_that_multiply():
    names = [name for name, _ in chosen_operators(parse_model(averaging()), COMPUTE)]
    assert names == ["CONV_2D", "AVERAGE_POOL_2D", "MEAN", "FULLY_CONNECTED"]


def test_layer_norm_between_two_dense_layers_stays_in_float():
    g = Graph()
    x = g.tensor("x", [1, 6])
    first = dense(g, x, "first", 6, 6)
    axes = g.tensor("axes", [1], [1], "int32")
    options = fb.ReducerOptionsT()
    options.keepDims = True
    middle = g.op("MEAN", [first, axes], [g.tensor("middle", [1, 1])], options, "ReducerOptions")
    centred = g.op("SUB", [first, middle], [g.tensor("centred", [1, 6])], fb.SubOptionsT(), "SubOptions")
    square = g.op("MUL", [centred, centred], [g.tensor("square", [1, 6])], fb.MulOptionsT(), "MulOptions")
    spread = g.op("RSQRT", [square], [g.tensor("spread", [1, 6])])
    normal = g.op("MUL", [centred, spread], [g.tensor("normal", [1, 6])], fb.MulOptionsT(), "MulOptions")
    scaled = g.op(
        "MUL", [normal, g.tensor("gain", [6], [1] * 6)], [g.tensor("scaled", [1, 6])], fb.MulOptionsT(), "MulOptions"
    )
    out = dense(g, add(g, scaled, first, "residual", [1, 6]), "out", 6, 3)
    assert chosen(g, x, out) == ["FULLY_CONNECTED", "FULLY_CONNECTED"]


@pytest.mark.parametrize("scope", ["compute", "all"])
@pytest.mark.parametrize("precision", ["int8", "int8-dynamic"])
def test_product_with_constant_weights_has_one_scale(tmp_path, scope, precision):
    """With one per channel LiteRT's kernel computed nonsense: a text classifier answered the same for everything."""
    rng = np.random.default_rng(0)
    g = Graph()
    x = g.tensor("x", [1, 16])
    weights = g.tensor("w", [16, 4], rng.normal(0, 1, (16, 4)) * [0.01, 1, 5, 0.1])
    options = fb.BatchMatMulOptionsT()
    out = g.op("BATCH_MATMUL", [x, weights], [g.tensor("out", [1, 4])], options, "BatchMatMulOptions")
    (tmp_path / "net.tflite").write_bytes(g.raw([x], [out]))
    np.savez(tmp_path / "cal.npz", x=rng.standard_normal((32, 16)).astype("float32"))
    (tmp_path / "r.toml").write_text(f'precision = "{precision}"\nscope = "{scope}"\n')
    built = build(
        str(tmp_path / "net.tflite"),
        "linux-x86-64",
        runtime="tflite",
        recipe=str(tmp_path / "r.toml"),
        calibration=str(tmp_path / "cal.npz"),
        output=tmp_path / "net.edgepack",
    )
    assert "host-parity" not in [finding.code for finding in built.manifest.findings]


def test_what_stays_in_float_says_why():
    g = Graph()
    image = g.tensor("image", SIZE)
    first = step(g, image, "first")
    alpha = g.tensor("alpha", [1, 1, 4], np.full((1, 1, 4), 0.2))
    out = step(g, g.op("PRELU", [first, alpha], [g.tensor("bent", SIZE)]), "out")
    (found,) = float_findings(parse_model(g.raw([image], [softmax(g, out, "end", SIZE)])), NAMED["int8"])
    assert 'scope = "all"' in found.advice  # takes the softmax
    assert "does not quantise PRELU" in found.advice
