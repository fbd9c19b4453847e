"""Recipes: what is done to the model's numbers. Named ones ship with the project; a TOML file describes one's own."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path
from typing import Any

from agent.contract import codec
from agent.contract.errors import ContractError, UsageError, unknown_name
from packager.recipe_steps import expand, without_folders

PRECISIONS = ("fp32", "fp16", "int8-dynamic", "int8", "int16x8", "int8-fp16")
METHODS = ("minmax", "entropy", "percentile", "mse")
SCOPES = ("", "compute", "all")
IO_TYPES = ("", "float", "int8")
_TYPES = {"i8": "int8", "u8": "uint8"}
_DECODABLE = re.compile(
    r"(?P<kind>static|dynamic)_w(?P<weights>[iu]8)_a(?P<activations>[iu]8|i16|fp32)(_(?P<how>pertensor|entropy|percentile))?"
)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a model is lowered. Empty types and scope are chosen for the device by the target.

    `percentile` counts only with the method of that name. `exclude` names nodes that stay in float; `operators` limits
    quantisation to these operator types (empty: what `scope` says). `io` is the type of a static INT8 model's inputs and
    outputs, where the runtime leaves the choice. `qat` names a function (file.py:function) that trains the module with fake
    quantisation in it, in the place of calibration. `equalize` shares channel ranges between neighbouring convolutions,
    `bias_correction` takes back what rounding adds to a channel, `asymmetric` gives signed activations a zero point,
    `smooth` moves the wide channels of what layers read into their weights,
    `float_products` leaves what matrix products give unrounded, where the next operator computes in float.
    `steps` are a recipe file's, in order (recipe_steps.py).
    """

    name: str
    precision: str
    per_channel: bool = True
    method: str = "minmax"
    percentile: float = 99.999
    weight_type: str = ""
    activation_type: str = ""
    scope: str = ""
    operators: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    keep_io_types: bool = True
    qat: str = ""
    io: str = ""
    equalize: bool = False
    bias_correction: bool = False
    asymmetric: bool = False
    smooth: bool = False
    float_products: bool = False
    steps: tuple[dict[str, Any], ...] = ()
    schema: str = "edgepack.recipe/1"

    def document(self) -> dict[str, Any]:
        """For the manifest: files by their names only."""
        told: dict[str, Any] = without_folders(
            {key: value for key, value in codec.encode(self).items() if key != "schema"}
        )
        return told

    @property
    def needs_calibration(self) -> bool:
        """Whether activation ranges must be measured on data."""
        return self.precision in ("int8", "int16x8", "int8-fp16") and not self.qat


NAMED = {name: Recipe(name=name, precision=name) for name in PRECISIONS}
NAMED |= {
    "int8-entropy": Recipe(name="int8-entropy", precision="int8", method="entropy"),
    "int8-percentile": Recipe(name="int8-percentile", precision="int8", method="percentile"),
    "int8-per-tensor": Recipe(name="int8-per-tensor", precision="int8", per_channel=False),
}
FOLDER = Path(__file__).parent / "recipes"


def recipe_names() -> list[str]:
    """Every recipe that ships with the project: the plain ones, then the files of the folder `recipes`."""
    return [*NAMED, *sorted(path.stem for path in FOLDER.glob("*.toml"))]


def load_recipe(name: str) -> Recipe:
    """A named recipe, or the one in a TOML file. Raises UsageError or ContractError."""
    if name in NAMED:
        return NAMED[name]
    if (decoded := decode_name(name)) is not None:
        return decoded
    path = Path(name)
    if not (name.endswith(".toml") or "/" in name):
        path = FOLDER / f"{name}.toml"
        if name not in recipe_names():
            fix = "name one of these, a name such as static_wi8_ai8, or a path to a .toml file"
            raise unknown_name("recipe", name, recipe_names(), fix=fix)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the recipe cannot be read: {error}", where=name) from error
    except tomllib.TOMLDecodeError as error:
        raise ContractError(f"not TOML: {error}", where=name) from error
    data.setdefault("schema", Recipe.schema)
    data.setdefault("name", path.stem)
    if "steps" in data:
        data = expand(data, name)
    recipe = codec.decode(Recipe, data, source=name)
    _check(recipe, name)
    return recipe


def decode_name(name: str) -> Recipe | None:
    """The recipe that a decodable name means: static_wi8_ai8 is static, int8 weights, int8 activations; `wu8` is uint8,
    `ai16` int16, `dynamic_wi8_afp32` dynamic; _pertensor, _entropy and _percentile may follow. None for another name.
    """
    match = _DECODABLE.fullmatch(name)
    if match is None:
        return None
    weights, activations, how = match["weights"], match["activations"], match["how"] or ""
    if match["kind"] == "dynamic":
        if activations != "fp32" or how in ("entropy", "percentile"):
            return None
        return Recipe(name, "int8-dynamic", per_channel=how != "pertensor", weight_type=_TYPES[weights])
    if activations not in _TYPES and activations != "i16":
        return None
    return Recipe(
        name,
        "int16x8" if activations == "i16" else "int8",
        per_channel=how != "pertensor",
        method=how if how in METHODS else "minmax",
        weight_type=_TYPES[weights],
        activation_type="" if activations == "i16" else _TYPES[activations],
    )


def _check(recipe: Recipe, where: str) -> None:
    allowed = {
        "precision": PRECISIONS,
        "method": METHODS,
        "scope": SCOPES,
        "weight_type": ("", "int8", "uint8"),
        "activation_type": ("", "int8", "uint8"),
        "io": IO_TYPES,
    }
    for key, values in allowed.items():
        value = getattr(recipe, key)
        if value not in values:
            known = ", ".join(value or "(empty)" for value in values)
            raise ContractError(f"$.{key}: unknown value {value!r}", where=where, expected=f"one of: {known}")
    if recipe.qat and recipe.precision != "int8":
        raise ContractError("$.qat: training is for INT8", where=where, expected='precision = "int8"')
    if not 50 < recipe.percentile <= 100:  # noqa: PLR2004 - below the median nothing is a range
        raise ContractError(f"$.percentile: {recipe.percentile}", where=where, expected="above 50, at most 100")
