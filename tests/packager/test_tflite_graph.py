"""Superfluous operators go where the result is exactly the same, and nowhere else."""

import pytest

from packager.tflite_graph import (
    flatten_biases,
    fold_activations,
    fold_flattening,
    fold_pads,
    same_padding,
    share_constants,
)
from packager.tflite_model import model_inputs, model_outputs, operator_counts, parse_model, to_bytes
from packager.tflite_run import run_tflite
from tests.tflite_models import Graph, conv, dense, fb, needs_tflite, pad, reshape, samples

pytestmark = needs_tflite


def padded_conv(size, stride):
    out = (size + 2 - 3) // stride + 1
    g = Graph()
    image = g.tensor("image", [1, size, size, 3])
    wide = pad(g, image, "wide", [1, size + 2, size + 2, 3])
    return g.raw([image], [conv(g, wide, "out", [1, out, out, 4], [4, 3, 3, 3], stride=stride)])


def outputs(raw, path, size):
    path.write_bytes(raw)
    batches = [{"image": one[None]} for one in samples(3, size)]
    return [row["out"] for row in run_tflite(path, batches, ["image"], ["out"])]


@pytest.mark.parametrize(("size", "stride", "folded"), [(8, 1, 1), (9, 2, 1), (8, 2, 0), (7, 3, 1), (8, 3, 0)])
def test_pad_is_folded_only_where_same_padding_is_equal(tmp_path, size, stride, folded):
    raw = padded_conv(size, stride)
    model = parse_model(raw)
    assert fold_pads(model) == folded
    after = to_bytes(model)
    assert operator_counts(parse_model(after))["PAD"] == 1 - folded
    before = outputs(raw, tmp_path / "before.tflite", size)
    for left, right in zip(before, outputs(after, tmp_path / "after.tflite", size), strict=True):
        assert left.shape == right.shape
        assert abs(left - right).max() < 1e-5


def test_same_padding_puts_the_smaller_half_first():
    assert same_padding(8, 3, 1, 1) == (1, 1)
    assert same_padding(8, 3, 2, 1) == (0, 1)
    assert same_padding(9, 3, 2, 1) == (1, 1)
    assert same_padding(10, 3, 1, 2) == (2, 2)


def test_pad_with_another_user_stays(tmp_path):
    g = Graph()
    image = g.tensor("image", [1, 8, 8, 3])
    wide = pad(g, image, "wide", [1, 10, 10, 3])
    out = conv(g, wide, "out", [1, 8, 8, 4], [4, 3, 3, 3])
    raw = g.raw([image], [out, reshape(g, wide, "flat", [1, 300])])
    assert fold_pads(parse_model(raw)) == 0


def activated(kind, *, twice=False, relu=False):
    g = Graph()
    image = g.tensor("image", [1, 8, 8, 3])
    wide = conv(g, image, "wide", [1, 8, 8, 4], [4, 3, 3, 3], padding="SAME", relu=relu)
    out = g.op(kind, [wide], [g.tensor("out", [1, 8, 8, 4])])
    return g.raw([image], [out, wide] if twice else [out])


@pytest.mark.parametrize("kind", ["RELU", "RELU6", "RELU_N1_TO_1"])
def test_activation_of_its_own_goes_into_the_convolution(tmp_path, kind):
    raw = activated(kind)
    model = parse_model(raw)
    assert fold_activations(model) == 1
    assert operator_counts(model) == {"CONV_2D": 1}
    after = outputs(to_bytes(model), tmp_path / "after.tflite", 8)
    for left, right in zip(outputs(raw, tmp_path / "before.tflite", 8), after, strict=True):
        assert left.min() < left.max()
        assert abs(left - right).max() == 0


@pytest.mark.parametrize("options", [{"twice": True}, {"relu": True}])
def test_activation_stays_where_the_values_before_it_are_used_or_clipped_already(options):
    assert fold_activations(parse_model(activated("RELU6", **options))) == 0


def test_transpose_before_flattening_goes_into_the_weights(tmp_path):
    import numpy as np

    g = Graph()
    image = g.tensor("image", [1, 4, 4, 3])
    order = g.tensor("order", [4], np.array([0, 3, 1, 2]), "int32")
    first = g.op("TRANSPOSE", [image, order], [g.tensor("first", [1, 3, 4, 4])])
    raw = g.raw([image], [dense(g, reshape(g, first, "flat", [1, 48]), "out", 48, 5)])
    model = parse_model(raw)
    assert fold_flattening(model) == 1
    after = to_bytes(model)
    assert "TRANSPOSE" not in operator_counts(parse_model(after))
    before = outputs(raw, tmp_path / "before.tflite", 4)
    for left, right in zip(before, outputs(after, tmp_path / "after.tflite", 4), strict=True):
        assert abs(left - right).max() < 1e-5


def test_bias_of_four_dimensions_is_flattened():
    g = Graph()
    image = g.tensor("image", [1, 6])
    out = dense(g, image, "out", 6, 4)
    model = parse_model(g.raw([image], [out]))
    bias = next(t for t in model.subgraphs[0].tensors if t.name == b"out/b")
    bias.shape = [1, 1, 1, 4]
    assert flatten_biases(model) == 1
    assert list(bias.shape) == [4]
    assert [spec.shape for spec in (*model_inputs(model), *model_outputs(model))] == [[1, 6], [1, 4]]


def test_weights_behind_the_flatbuffer_come_along(tmp_path):
    """ai-edge-quantizer puts weights there where they are 256 kB or more together."""
    import numpy as np

    from packager.pipeline import build

    g = Graph()
    image = g.tensor("image", [1, 512])
    raw = g.raw([image], [dense(g, image, "out", 512, 600)])
    (tmp_path / "net.tflite").write_bytes(raw)
    data = np.random.default_rng(0).standard_normal((16, 512)).astype("float32")
    np.savez(tmp_path / "cal.npz", image=data)
    built = build(
        str(tmp_path / "net.tflite"),
        "linux-x86-64",
        runtime="tflite",
        recipe="int8",
        calibration=str(tmp_path / "cal.npz"),
        output=tmp_path / "net.edgepack",
    )
    assert "host-parity" not in [one.code for one in built.manifest.findings]


def test_weights_written_once_per_use_become_one(tmp_path):
    g = Graph()
    image = g.tensor("image", [1, 32])
    values = samples(1, 19).ravel()[: 32 * 32].reshape(32, 32)
    last = image
    for step in range(3):
        weights, out = g.tensor(f"w{step}", [32, 32], values), g.tensor("out" if step == 2 else f"h{step}", [1, 32])
        last = g.op("FULLY_CONNECTED", [last, weights, -1], [out], fb.FullyConnectedOptionsT(), "FullyConnectedOptions")
    raw = g.raw([image], [last])
    model = parse_model(raw)
    assert share_constants(model) == 2 * 4 * 32 * 32
    after = to_bytes(model)
    assert len(after) < len(raw) - 8000
    feed = [{"image": samples(1, 4).ravel()[:32][None]}]
    found = []
    for place, content in enumerate((raw, after)):
        (tmp_path / f"{place}.tflite").write_bytes(content)
        found += run_tflite(tmp_path / f"{place}.tflite", feed, ["image"], ["out"])
    assert found[0]["out"].tolist() == found[1]["out"].tolist()
    assert share_constants(parse_model(after)) == 0
