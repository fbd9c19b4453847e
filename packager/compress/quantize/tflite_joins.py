"""Outputs that join values of very different size, as detectors join boxes and scores: one scale of 8 bits loses the small."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.finding import INFO, WARNING, Finding
from packager.compress.quantize.clipping import lost
from packager.compress.quantize.tflite_ranges import kept_arrays, tensor_values
from packager.tflite_model import constant, operator_name, output_names, parse_model, quiet, text

if TYPE_CHECKING:
    import numpy as np

    from packager.compress.quantize.tflite_ranges import Samples
    from packager.recipe import Recipe

    Array = np.ndarray[Any, Any]

_MOVES = ("RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS")
_SAMPLES = 8


def sound_outputs(
    raw: bytes, recipe: Recipe, feeds: Samples, cache: Path | None, *, free: bool
) -> tuple[Recipe, list[Finding]]:
    """The recipe with floats in and out where integers would round a part of an output to nothing. `free`: the user left
    that open, and the device takes floats; else it is only told.
    """
    if recipe.precision != "int8" or recipe.io != "int8":
        return recipe, []
    with quiet():
        found = _mixed(raw, feeds, cache)
    if not found:
        return recipe, []
    told = "; ".join(
        f"{name} joins values that spread over {large:.3g} with values that spread over {small:.3g}"
        for name, (large, small) in found.items()
    )
    if free:
        text_ = f"inputs and outputs stay in float: {told}, and one scale of 8 bits leaves nothing of the small ones"
        advice = 'io = "int8" in a recipe file makes them integers all the same'
        return dataclasses.replace(recipe, io="float"), [Finding("float-outputs", INFO, text_, advice)]
    text_ = f"{told}: one scale of 8 bits leaves nothing of the small ones"
    advice = "give the model an output for each (the parts before they are joined)"
    return recipe, [Finding("mixed-output", WARNING, text_, advice)]


def _mixed(raw: bytes, feeds: Samples, cache: Path | None) -> dict[str, tuple[float, float]]:
    """For outputs that join such parts: the spread of the whole, and of the smallest part."""
    parts = joined_parts(parse_model(raw))
    if not parts:
        return {}
    names = sorted({name for leaves in parts.values() for name in leaves})
    if cache is None:
        ends = _ends(raw, names, feeds)
    else:
        place = cache / f"joined-{hashlib.sha256(raw).hexdigest()[:24]}.npz"
        ends = kept_arrays(place, lambda: _ends(raw, names, feeds))
    found = {}
    for name, leaves in parts.items():
        spreads = [float(high - low) for low, high in (ends[leaf] for leaf in leaves)]
        whole = float(max(ends[leaf][1] for leaf in leaves) - min(ends[leaf][0] for leaf in leaves))
        least = min((one for one in spreads if one > 0), default=whole)
        if lost(least, whole):
            found[name] = whole, least
    return found


def _ends(raw: bytes, names: list[str], feeds: Samples) -> dict[str, Array]:
    import numpy as np

    found = {name: np.array([np.inf, -np.inf]) for name in names}
    for value in tensor_values(raw, feeds(_SAMPLES)):
        for name, ends in found.items():
            values = value(name)
            ends[:] = min(ends[0], values.min()), max(ends[1], values.max())
    return found


def joined_parts(model: Any) -> dict[str, list[str]]:
    """For each output that CONCATENATIONs make, however moved: the tensors that are joined."""
    graph = model.subgraphs[0]
    made_by = {int(index): op for op in graph.operators for index in op.outputs}

    def parts(index: int) -> Iterator[int]:
        op: Any = made_by.get(index)
        kind = "" if op is None else operator_name(model, op)
        if kind == "CONCATENATION":
            for one in op.inputs:
                yield from parts(int(one))
        elif kind in _MOVES:
            yield from parts(int(op.inputs[0]))
        elif constant(model, graph.tensors[index]) is None:
            yield index

    found = {}
    for index, name in zip(graph.outputs, output_names(model), strict=True):
        leaves = list(dict.fromkeys(parts(int(index))))
        if len(leaves) > 1:
            found[name] = [text(graph.tensors[one].name) for one in leaves]
    return found
