"""Recipe files with steps: typed, ordered, and told what is wrong with them; and recipes whose names decode."""

import pytest

from agent.contract.errors import ContractError, UsageError
from packager.recipe import decode_name, load_recipe, recipe_names

GOOD = """
[[steps]]
do = "prune"
method = "structured"
sparsity = 0.5
schedule = [0.2, 0.5]
training = { data = "train.py:batches", epochs = 2 }

[[steps]]
do = "distill"
teacher = "net.py:large"
training = { data = "train.npz" }
features = { "body.3" = "body.7" }

[[steps]]
do = "quantize"
precision = "int8"
method = "entropy"
"""


def recipe(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return load_recipe(str(path))


def test_steps_are_typed_and_fill_the_plain_fields(tmp_path):
    made = recipe(tmp_path, GOOD)
    assert (made.name, made.precision, made.method) == ("mine", "int8", "entropy")
    assert [step["do"] for step in made.steps] == ["prune", "distill", "quantize"]
    assert made.steps[0]["schedule"] == [0.2, 0.5]
    assert made.steps[0]["training"]["epochs"] == 2
    assert made.needs_calibration


def test_every_recipe_that_ships_loads():
    for name in recipe_names():
        assert load_recipe(name).name == name


@pytest.mark.parametrize(
    ("name", "precision", "weights", "activations", "per_channel"),
    [
        ("static_wi8_ai8", "int8", "int8", "int8", True),
        ("static_wu8_au8_pertensor", "int8", "uint8", "uint8", False),
        ("static_wi8_ai16", "int16x8", "int8", "", True),
        ("dynamic_wi8_afp32", "int8-dynamic", "int8", "", True),
    ],
)
def test_names_decode(name, precision, weights, activations, per_channel):
    made = load_recipe(name)
    assert (made.precision, made.weight_type, made.activation_type) == (precision, weights, activations)
    assert made.per_channel is per_channel


@pytest.mark.parametrize("name", ["static_wi4_ai8", "dynamic_wi8_ai8", "static_wi8_afp32", "static"])
def test_names_that_mean_nothing(name):
    assert decode_name(name) is None
    with pytest.raises(UsageError, match="unknown recipe"):
        load_recipe(name)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[[steps]]\ndo = "prun"', "did you mean 'prune'"),
        ('[[steps]]\ndo = "prune"\nsparsty = 0.5', "did you mean 'sparsity'"),
        ('[[steps]]\ndo = "prune"\nsparsity = "half"', "expected float"),
        ('[[steps]]\ndo = "prune"\nsparsity = 80.0', "8000%"),
        ('[[steps]]\ndo = "prune"\nschedule = [0.5, 1.5]', "150%"),
        ('[[steps]]\ndo = "distill"\nteacher = "a.py:b"', "missing key 'training'"),
        ('[[steps]]\ndo = "quantize"\n[[steps]]\ndo = "prune"', "prune after quantize"),
        ('[[steps]]\ndo = "fuse"\n[[steps]]\ndo = "fuse"', "fuse twice"),
        ('precision = "fp16"\n[[steps]]\ndo = "quantize"', "the step quantize says 'int8'"),
        ('steps = "prune"', "list of tables"),
        ('[[steps]]\ndo = "convert"\nexporter = "other"', "unknown value"),
    ],
)
def test_what_is_wrong_is_told(tmp_path, text, told):
    with pytest.raises(ContractError) as caught:
        recipe(tmp_path, text)
    assert told in str(caught.value)
