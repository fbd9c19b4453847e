"""Smoothed activations (SmoothQuant; Xiao et al. 2022, arXiv:2211.10438): the wide input channels of a matrix product are
narrowed, and its weights, which have a scale for each output, take their width over.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING, Any

from packager.compress.onnx_values import tensor_values
from packager.compress.quantize.onnx_correction import rounded

if TYPE_CHECKING:
    import numpy as np

    from packager.calibration import CalibrationData
    from packager.recipe import Recipe

    Array = np.ndarray[Any, Any]

_MOST_SAMPLES = 32
_ROWS = 256  # of an activation: what the noise is measured on
_STRENGTHS = (0.5, 0.65, 0.8, 0.9)  # of the width that goes into the weights; the paper's is the first
_PAYS = 0.5  # of the noise before: what takes less away is not worth a multiplication
_LEAST = 1e-5


def smooth(model: Any, calibration: CalibrationData, recipe: Recipe) -> int:
    """Divides the channels of activations by what their products' weights are multiplied with; before how many products
    (0 in a net where that halves the noise of none). The function of the graph stays the same.

    An activation is what MatMuls and Gemms with constant weights read; its last axis are the channels. Each takes the
    strength that leaves its own products the least noise.
    """
    import numpy as np
    from onnx import numpy_helper

    groups = _groups(model)
    seen = _seen(model, list(groups), calibration)
    done = 0
    for name, nodes in groups.items():
        tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        weights = [np.moveaxis(numpy_helper.to_array(tensors[node.input[1]]), _inner(node), 0) for node in nodes]
        scale = _best(seen[name], weights, recipe) if name in seen else None
        if scale is not None:
            _scale(model, name, nodes, weights, scale)
            done += len(nodes)
    return done


@dataclasses.dataclass
class _Seen:
    """Of an activation: the least and the greatest value of each channel, and some rows."""

    low: Array
    high: Array
    rows: Array


def _best(seen: _Seen, weights: list[Array], recipe: Recipe) -> Array | None:
    """What the channels are best divided by; None where that buys too little."""
    import numpy as np

    both = np.concatenate(weights, axis=1)
    widths, taken = np.maximum(np.abs(seen.low), np.abs(seen.high)), np.abs(both).max(axis=1)
    # A channel that is never seen, or that no weight reads, stays as it is.
    alive = (widths > _LEAST) & (taken > _LEAST)
    least, found = _PAYS * _noise(seen, both, np.ones_like(widths), recipe), None
    for strength in _STRENGTHS:
        scale = np.maximum(widths, _LEAST) ** strength / np.maximum(taken, _LEAST) ** (1 - strength)
        scale = np.where(alive, scale / np.exp(np.log(scale[alive]).mean()) if alive.any() else 1.0, 1.0)
        noise = _noise(seen, both, scale, recipe)
        if noise < least:
            least, found = noise, scale
    return found


def _noise(seen: _Seen, weight: Array, scale: Array, recipe: Recipe) -> float:
    """The power of what rounding adds to the products of these rows."""
    import numpy as np

    low = min(float((seen.low / scale).min()), 0.0)
    high = max(float((seen.high / scale).max()), 0.0)
    if recipe.activation_type == "int8" and not recipe.asymmetric:
        high = max(high, -low)
        low = -high
    step = max(high - low, 1e-12) / 255
    zero = np.round(-low / step)
    rows = (np.clip(np.round(seen.rows / scale / step) + zero, 0, 255) - zero) * step
    wrong = rows @ rounded(weight * scale[:, None], recipe, axis=1) - seen.rows @ weight
    return float((wrong.astype(np.float64) ** 2).sum())


def _groups(model: Any) -> dict[str, list[Any]]:
    """The activations that products read, each with its products."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    found: dict[str, list[Any]] = {}
    for node in model.graph.node:
        weight = tensors.get(node.input[1]) if node.op_type in ("MatMul", "Gemm") else None
        turned = any(one.name == "transA" and one.i for one in node.attribute)
        if weight is not None and len(weight.dims) == 2 and not turned and node.input[0] not in tensors:  # noqa: PLR2004
            found.setdefault(node.input[0], []).append(node)
    return found


def _inner(node: Any) -> int:
    """The axis of the weights that meets the activation's channels."""
    return 1 if any(one.name == "transB" and one.i for one in node.attribute) else 0


def _seen(model: Any, names: list[str], calibration: CalibrationData) -> dict[str, _Seen]:
    """What of these tensors passes by in some of the samples."""
    import numpy as np

    if not names:
        return {}
    found: dict[str, _Seen] = {}
    each = max(1, _ROWS // min(_MOST_SAMPLES, len(calibration)))
    for values in tensor_values(model, calibration.feeds(_MOST_SAMPLES), names):
        for name, value in values.items():
            array = value.reshape(-1, value.shape[-1])
            low, high = array.min(axis=0), array.max(axis=0)
            rows = array[:: max(1, len(array) // each)][:each]
            if name in found:
                one = found[name]
                low, high = np.minimum(one.low, low), np.maximum(one.high, high)
                rows = np.concatenate([one.rows, rows])
            found[name] = _Seen(low, high, rows)
    return found


def _scale(model: Any, name: str, nodes: list[Any], weights: list[Array], scale: Array) -> None:
    """A multiplication before the products, and weights that undo it."""
    import numpy as np
    from onnx import helper, numpy_helper

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    uses = Counter(one for node in model.graph.node for one in node.input)
    # Not "..._scale": so the quantiser names what belongs to a tensor.
    made, factor = f"{name}_smoothed", f"{name}_smoothing"
    model.graph.initializer.append(numpy_helper.from_array((1 / scale).astype(np.float32), factor))
    place = next(index for index, node in enumerate(model.graph.node) if node.name == nodes[0].name)
    model.graph.node.insert(place, helper.make_node("Mul", [name, factor], [made], name=made))
    for node, weight in zip(nodes, weights, strict=True):
        array = np.moveaxis(weight * scale[:, None], 0, _inner(node)).astype(np.float32)
        if uses[node.input[1]] > 1:  # others read the weights as they were
            node.input[1] = f"{node.name}_smoothed_weight"
            model.graph.initializer.append(numpy_helper.from_array(array, node.input[1]))
        else:
            tensors[node.input[1]].CopyFrom(numpy_helper.from_array(array, node.input[1]))
        node.input[0] = made
