"""An output that joins large and small values keeps the small ones."""

import numpy as np
import pytest

from packager.compress.quantize.tflite_joins import joined_parts
from packager.recipe import load_recipe
from packager.tflite_model import constant, parse_model, to_bytes
from tests.tflite_models import Graph, built, dense, fb, needs_tflite, reshape

pytestmark = needs_tflite


def detector(large):
    """Boxes of values up to `large` times those of the scores, joined and moved."""
    g = Graph()
    image = g.tensor("image", [1, 8])
    boxes, scores = dense(g, image, "boxes", 8, 4, seed=1), dense(g, image, "scores", 8, 6, seed=2)
    options = fb.ConcatenationOptionsT()
    options.axis = 1
    both = g.op("CONCATENATION", [boxes, scores], [g.tensor("both", [1, 10])], options, "ConcatenationOptions")
    model = parse_model(g.raw([image], [reshape(g, both, "out", [1, 10, 1])]))
    for tensor in model.subgraphs[0].tensors:
        if tensor.name in (b"boxes/w", b"boxes/b"):
            values = constant(model, tensor) * np.float32(large)
            model.buffers[tensor.buffer].data = np.frombuffer(values.tobytes(), np.uint8)
    return to_bytes(model)


def feeds():
    return np.random.default_rng(0).standard_normal((16, 8)).astype("float32")


def codes(made):
    return [one.code for one in made.manifest.findings]


def test_the_parts_are_found_behind_what_moves_them():
    assert joined_parts(parse_model(detector(1))) == {"out": ["boxes", "scores"]}


@pytest.mark.parametrize(("large", "dtype"), [(1, "int8"), (300, "float32")])
def test_outputs_stay_in_float_where_one_scale_would_lose_a_part(tmp_path, large, dtype):
    made = built(tmp_path, detector(large), feeds=feeds())
    assert [spec.dtype for spec in made.manifest.outputs] == [dtype]
    assert ("float-outputs" in codes(made)) == (large > 1)


def test_a_recipe_that_says_int8_is_followed_and_told(tmp_path):
    path = tmp_path / "whole.toml"
    path.write_text('precision = "int8"\nio = "int8"\n', encoding="utf-8")
    assert load_recipe(str(path)).io == "int8"
    made = built(tmp_path, detector(300), str(path), feeds=feeds())
    assert [spec.dtype for spec in made.manifest.outputs] == ["int8"]
    assert "mixed-output" in codes(made)


def test_a_microcontroller_takes_integers_and_is_told(tmp_path):
    made = built(tmp_path, detector(300), target="cortex-m7", feeds=feeds(), runtime=None)
    assert [spec.dtype for spec in made.manifest.outputs] == ["int8"]
    assert "mixed-output" in codes(made)
