"""Recipes: those with names, and files of one's own."""

import pytest

from agent.contract.errors import ContractError, UsageError
from packager.recipe import NAMED, load_recipe


@pytest.mark.parametrize("name", ["fp32", "fp16", "int8-dynamic", "int8"])
def test_names_of_the_interface(name):
    assert load_recipe(name).precision == name
    assert load_recipe(name).needs_calibration == (name == "int8")


def test_every_named_recipe_is_called_by_its_name():
    assert all(recipe.name == name for name, recipe in NAMED.items())


def test_file_is_read(place):
    (place / "mine.toml").write_text(
        'precision = "int8"\nmethod = "percentile"\npercentile = 99\nexclude = ["gemm"]\nweight_type = "uint8"\n'
    )
    recipe = load_recipe("mine.toml")
    assert (recipe.name, recipe.percentile, recipe.exclude) == ("mine", 99.0, ("gemm",))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('precision = "int4"', r"\$\.precision: unknown value 'int4'"),
        ('precision = "int8"\nmethod = "max"', r"\$\.method"),
        ('precision = "int8"\nper_chanel = true', "did you mean 'per_channel'"),
        ('precision = "int8"\nper_channel = "yes"', r"\$\.per_channel"),
        ('precision = "int8"\npercentile = 12.0', r"\$\.percentile"),
        ('precision = "int8"\nweight_type = "int4"', r"\$\.weight_type"),
        ('precision = "int8"\nexclude = "gemm"', r"\$\.exclude"),
        ('precision = "int8"\nschema = "edgepack.recipe/2"', "schema"),
        ('method = "minmax"', "missing key 'precision'"),
        ("precision = int8", "not TOML"),
    ],
)
def test_file_that_is_wrong_is_told_where(place, text, told):
    (place / "mine.toml").write_text(text)
    with pytest.raises(ContractError, match=told) as caught:
        load_recipe("./mine.toml")
    assert caught.value.where == "./mine.toml"


def test_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'int8-dynamic'"):
        load_recipe("int8-dynamc")
    with pytest.raises(UsageError, match="cannot be read"):
        load_recipe("there/is/none.toml")


def test_own_recipe_leaves_a_node_in_float(packed, classifier, npz, place):
    (place / "mine.toml").write_text('precision = "int8"\nexclude = ["gemm"]\nmethod = "entropy"\n')
    made = packed(classifier, recipe="mine.toml", calibration=str(npz))
    assert made.manifest["recipe"]["name"] == "mine"
    assert made.manifest["steps"][-1]["options"]["exclude"] == ["gemm"]
    weights = {one.name for one in made.model.graph.initializer}
    assert {"w3", "w1_quantized"} <= weights
    (place / "typo.toml").write_text('precision = "int8"\nexclude = ["gem"]\n')
    with pytest.raises(UsageError, match="did you mean 'gemm'"):
        packed(classifier, recipe="typo.toml", calibration=str(npz))
