"""What is done to a float TFLite graph before it is quantised, so that rounding costs less; kept for the next recipe."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.finding import INFO, Finding
from packager.compress.quantize.tflite_correction import correct_tflite, mean_shifts
from packager.compress.quantize.tflite_ranges import kept_arrays
from packager.compress.tflite_equalize import equalize_tflite
from packager.compress.tflite_smooth import smooth_tflite
from packager.tflite_model import parse_model, to_bytes

if TYPE_CHECKING:
    import numpy as np

    from packager.compress.quantize.tflite_ranges import Samples
    from packager.recipe import Recipe

    Array = np.ndarray[Any, Any]


def rescaled(raw: bytes, recipe: Recipe, feeds: Samples, cache: Path | None) -> tuple[bytes, list[Finding]]:
    """The graph equalised and smoothed as the recipe asks; the very bytes where there is nothing to scale."""
    if not (recipe.equalize or recipe.smooth):
        return raw, []
    label = f"rescaled-{'equal' if recipe.equalize else ''}{'smooth' if recipe.smooth else ''}{recipe.scope}"
    made = _once(cache, label, raw, lambda: _rescale(raw, recipe, feeds))
    findings = []
    smoothed = "have their wide channels narrowed, and the weights that read them widened"
    if made["factors"]:
        smoothed += f", {int(made['factors'])} by a multiplication before matrix products"
    for asked, code, words in (
        (recipe.equalize, "equalised", "have the same range in the weights before and after them"),
        (recipe.smooth, "smoothed", smoothed),
    ):
        if asked:
            findings.append(Finding(code, INFO, f"{int(made[code])} activations (or sums of some) {words}", ""))
    return bytes(made["model"]), findings


def _rescale(raw: bytes, recipe: Recipe, feeds: Samples) -> dict[str, Array]:
    import numpy as np

    model = parse_model(raw)
    counts = {"equalised": equalize_tflite(model) if recipe.equalize else 0, "smoothed": 0, "factors": 0}
    if recipe.smooth:
        counts["smoothed"], counts["factors"] = smooth_tflite(model, feeds, floats=recipe.scope != "all")
    made = to_bytes(model) if any(counts.values()) else raw
    return {"model": np.frombuffer(made, np.uint8), **{key: np.array(count) for key, count in counts.items()}}


def corrected(
    raw: bytes, recipe: Recipe, kinds: Sequence[str], feeds: Samples, cache: Path | None
) -> tuple[bytes, list[Finding]]:
    """The graph with its biases corrected, where the recipe asks for that, in those layers of `kinds` that it quantises."""
    if not recipe.bias_correction:
        return raw, []
    model = parse_model(raw)
    label = f"shifts-{'channels' if recipe.per_channel else 'tensors'}"
    shifts = _once(cache, label, raw, lambda: mean_shifts(model, recipe, feeds))
    layers = correct_tflite(model, shifts, recipe, kinds)
    text = f"the biases of {layers} layers take back what rounding adds"
    return to_bytes(model) if layers else raw, [Finding("biases-corrected", INFO, text, "")]


def _once(cache: Path | None, label: str, raw: bytes, measure: Any) -> Mapping[str, Array]:
    if cache is None:
        found: Mapping[str, Array] = measure()
        return found
    return kept_arrays(cache / f"{label}-{hashlib.sha256(raw).hexdigest()[:24]}.npz", measure)
