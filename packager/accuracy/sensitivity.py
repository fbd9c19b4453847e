"""Where the loss comes from: each layer quantised alone, every other left in float."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError
from packager.accuracy.subject import Subject, decibels

if TYPE_CHECKING:
    from packager.compress.onnx_layers import Layer
    from packager.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """What one layer costs alone. `noise` is the share of noise in the outputs, `band` the output band that suffers most.

    `broken` says why the layer cannot be quantised alone, where that is so; `drop` (points) is None without an evaluation
    set.
    """

    layer: Layer
    noise: float
    band: str
    band_noise: float
    drop: float | None = None
    broken: str = ""

    def document(self) -> dict[str, Any]:
        """For --json."""
        return {
            "name": self.layer.name,
            "operator": self.layer.operator,
            "drop": self.drop,
            "sqnr_db": None if self.broken else round(decibels(self.noise), 2),
            "macs": self.layer.macs,
            "weights": self.layer.weights,
            "worst_band": self.band,
            "worst_band_sqnr_db": None if self.broken else round(decibels(self.band_noise), 2),
            "broken": self.broken,
        }


def worst_band(bands: Mapping[str, Any]) -> tuple[str, float]:
    """The output band with the most noise, as `output[index]`; whole-tensor numbers hide a dead one."""
    worst, share = "", 0.0
    for name, values in bands.items():
        place = int(values.argmax())
        if not worst or float(values[place]) > share:
            worst, share = f"{name}[{place}]", float(values[place])
    return worst, share


def measure_layer(
    subject: Subject,
    recipe: Recipe,
    layer: Layer,
    layers: Sequence[Layer],
    drop: Callable[[Any], float] | None = None,
) -> Sensitivity:
    """Quantises `layer` alone and compares with the original. `drop` scores the model, in points."""
    return measure_group(subject, recipe, [layer], layers, drop)


def measure_group(
    subject: Subject,
    recipe: Recipe,
    group: Sequence[Layer],
    layers: Sequence[Layer],
    drop: Callable[[Any], float] | None = None,
    most: int | None = None,
) -> Sensitivity:
    """Quantises the layers in `group`, no other, and compares on `most` probes; told of the first of them."""
    inside = {one.name for one in group}
    others = tuple(one.name for one in layers if one.name not in inside)
    try:
        alone = dataclasses.replace(recipe, exclude=(*recipe.exclude, *others))
        lowered = subject.draft(alone) if drop is None else subject.lower(alone)
    except ConvertError as error:
        if error.code not in ("quantiser-failed", "nothing-to-quantise"):
            raise
        # The quantiser's own refusal of this layer is a result of the analysis.
        return Sensitivity(group[0], 1.0, "", 1.0, None, error.what)
    noise, bands = subject.noise(lowered, most)
    band, share = worst_band(bands)
    return Sensitivity(group[0], noise, band, share, None if drop is None else drop(lowered))
