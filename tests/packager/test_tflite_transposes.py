"""TRANSPOSEs go in closed groups, and nothing that the model computes changes."""

import numpy as np
import pytest

from packager.tflite_model import model_outputs, operator_counts, parse_model, to_bytes
from packager.tflite_run import run_tflite
from packager.tflite_transposes import fold_transposes
from tests.tflite_models import Graph, fb, needs_tflite, reshape, samples

pytestmark = needs_tflite

FIRST, LAST = [0, 3, 1, 2], [0, 2, 3, 1]


def turn(g, source, name, shape, order):
    return g.op(
        "TRANSPOSE", [source, g.tensor(f"{name}/order", [4], np.array(order), "int32")], [g.tensor(name, shape)]
    )


def mean(g, source, name, shape, axes, *, keep=True):
    options = fb.ReducerOptionsT()
    options.keepDims = keep
    where = g.tensor(f"{name}/axes", [len(axes)], np.array(axes), "int32")
    return g.op("MEAN", [source, where], [g.tensor(name, shape)], options, "ReducerOptions")


def multiply(g, left, right, name, shape):
    return g.op("MUL", [left, right], [g.tensor(name, shape)], fb.MulOptionsT(), "MulOptions")


def run(raw, path):
    path.write_bytes(raw)
    names = [spec.name for spec in model_outputs(parse_model(raw))]
    batches = [{"image": one[None]} for one in samples(3, 4)]
    return [[row[name] for name in names] for row in run_tflite(path, batches, ["image"], names)]


def same(before, after):
    for left, right in zip(before, after, strict=True):
        for one, other in zip(left, right, strict=True):
            assert one.shape == other.shape
            assert abs(one - other).max() < 1e-6


def test_a_closed_group_goes_and_the_values_stay(tmp_path):
    """Squeeze and excite as converters leave it: pooled, scaled by a gate and by constants, all of it channels first."""
    g = Graph()
    image = g.tensor("image", [1, 4, 4, 3])
    first = turn(g, image, "first", [1, 3, 4, 4], FIRST)
    swish = g.op("HARD_SWISH", [first], [g.tensor("swish", [1, 3, 4, 4])])
    pooled = mean(g, swish, "pooled", [1, 3, 1, 1], [2, 3])
    flat = reshape(g, pooled, "flat", [1, 3])
    gate = reshape(g, g.op("LOGISTIC", [flat], [g.tensor("gate", [1, 3])]), "wide", [1, 3, 1, 1])
    gated = multiply(g, swish, gate, "gated", [1, 3, 4, 4])
    columns = g.tensor("columns", [4], np.arange(4))  # along the last axis, which becomes the third
    scaled = multiply(g, gated, columns, "scaled", [1, 3, 4, 4])
    channels = g.tensor("channels", [3, 1, 1], np.arange(3) + 1)
    each = multiply(g, scaled, channels, "each", [1, 3, 4, 4])
    back = turn(g, each, "back", [1, 4, 4, 3], LAST)
    out = g.op("RELU", [back], [g.tensor("out", [1, 4, 4, 3])])
    raw = g.raw([image], [out, flat])
    model = parse_model(raw)
    assert fold_transposes(model) == 2
    after = to_bytes(model)
    assert "TRANSPOSE" not in operator_counts(parse_model(after))
    same(run(raw, tmp_path / "before.tflite"), run(after, tmp_path / "after.tflite"))


def test_reduction_without_its_axes_and_a_concatenation_take_the_new_places(tmp_path):
    g = Graph()
    image = g.tensor("image", [1, 4, 4, 3])
    one = turn(g, image, "one", [1, 3, 4, 4], FIRST)
    two = g.op("TANH", [one], [g.tensor("two", [1, 3, 4, 4])])
    options = fb.ConcatenationOptionsT()
    options.axis = 1
    joined = g.op("CONCATENATION", [one, two], [g.tensor("joined", [1, 6, 4, 4])], options, "ConcatenationOptions")
    pooled = mean(g, joined, "pooled", [1, 6], [2, 3], keep=False)
    back = turn(g, joined, "back", [1, 4, 4, 6], LAST)
    raw = g.raw([image], [g.op("RELU", [back], [g.tensor("out", [1, 4, 4, 6])]), pooled])
    model = parse_model(raw)
    assert fold_transposes(model) == 2
    same(run(raw, tmp_path / "before.tflite"), run(to_bytes(model), tmp_path / "after.tflite"))


def ends_inside(g, image):
    """What lies between is an output of the model."""
    first = turn(g, image, "first", [1, 3, 4, 4], FIRST)
    swish = g.op("HARD_SWISH", [first], [g.tensor("swish", [1, 3, 4, 4])])
    back = turn(g, swish, "back", [1, 4, 4, 3], LAST)
    return [g.op("RELU", [back], [g.tensor("out", [1, 4, 4, 3])]), swish]


def depends(g, image):
    """A softmax goes along the last axis, whichever that is."""
    first = turn(g, image, "first", [1, 3, 4, 4], FIRST)
    options = fb.SoftmaxOptionsT()
    options.beta = 1.0
    soft = g.op("SOFTMAX", [first], [g.tensor("soft", [1, 3, 4, 4])], options, "SoftmaxOptions")
    back = turn(g, soft, "back", [1, 4, 4, 3], LAST)
    return [g.op("RELU", [back], [g.tensor("out", [1, 4, 4, 3])])]


def swaps(g, image):
    """What a mean leaves would come out in another order."""
    first = turn(g, image, "first", [1, 3, 4, 4], FIRST)
    left = mean(g, first, "left", [3, 4], [0, 2], keep=False)
    back = turn(g, first, "back", [1, 4, 4, 3], LAST)
    return [g.op("RELU", [back], [g.tensor("out", [1, 4, 4, 3])]), left]


@pytest.mark.parametrize("build", [ends_inside, depends, swaps])
def test_what_depends_on_the_layout_keeps_its_transposes(build):
    g = Graph()
    image = g.tensor("image", [1, 4, 4, 3])
    raw = g.raw([image], build(g, image))
    model = parse_model(raw)
    assert fold_transposes(model) == 0
    assert to_bytes(model) == to_bytes(parse_model(raw))
