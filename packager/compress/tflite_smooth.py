"""Smoothed activations of a float TFLite graph: channels that are wide beside the others of their tensor are narrowed in the
layer that makes them, whose weights have a scale for each output, and the layers that read them take the width over.

As SmoothQuant (Xiao et al. 2022, arXiv:2211.10438) does it before matrix products, here between convolutions and without an
operator more; before matrix products by a multiplication where nothing else can take it over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from packager.compress.channel_scales import PAYS, Reader, Seen, best_scale
from packager.compress.quantize.tflite_ranges import tensor_values
from packager.compress.tflite_channels import Channels, Layer, layers_with_weights, rescale, scalable
from packager.compress.tflite_factors import drop_idle, insert_factors
from packager.tflite_model import constant, text, to_bytes

if TYPE_CHECKING:
    import numpy as np

    from packager.compress.quantize.tflite_ranges import Samples

    Array = np.ndarray[Any, Any]

_MOST_SAMPLES = 32
_PAYS_IN_FLOAT = 0.5  # what takes less away is not worth an operator


def smooth_tflite(model: Any, feeds: Samples, *, floats: bool = True) -> tuple[int, int]:
    """Scales channels so that rounding adds the least noise to what the layers that read them give; of how many tensors, or
    groups of tensors that are added up, and how many of these by a multiplication in float before matrix products, which is
    put in only with `floats`. For weights with a scale per channel. The function stays the same.
    """
    free = {index for one in scalable(model) for index in one.tensors}
    factors = insert_factors(model, layers_with_weights(model), free) if floats else []
    own = {id(one.op) for one in factors}
    groups = [one for one in scalable(model, factors) if not one.clips]
    seen = _seen(model, groups, feeds) if groups else {}
    done = 0
    for one in groups:
        dear = any(id(layer.op) in own for layer in one.makers)
        scale = _best(model, one, seen, _PAYS_IN_FLOAT if dear else PAYS)
        if scale is not None:
            rescale(model, one, scale)
            done += 1
    return done, drop_idle(model, factors)


def _seen(model: Any, groups: list[Channels], feeds: Samples) -> dict[int, Seen]:
    import numpy as np

    tensors = model.subgraphs[0].tensors
    names = {index: text(tensors[index].name) for one in groups for index in one.tensors}
    found: dict[int, Seen] = {}
    count = 0
    for value in tensor_values(to_bytes(model), feeds(_MOST_SAMPLES)):
        count += 1
        for index, name in names.items():
            rows = value(name)
            rows = rows.reshape(-1, rows.shape[-1])
            low, high, power = rows.min(axis=0), rows.max(axis=0), (rows.astype(np.float64) ** 2).mean(axis=0)
            one = found.setdefault(index, Seen(low, high, np.zeros_like(power)))
            one.low, one.high, one.power = np.minimum(one.low, low), np.maximum(one.high, high), one.power + power
    for one in found.values():
        one.power /= count
    return found


def _best(model: Any, one: Channels, seen: dict[int, Seen], pays: float) -> Array | None:
    """What the channels are best divided by; None where that buys too little."""
    readers = [_reader(model, layer, seen) for layer in one.readers]
    return best_scale([seen[index] for index in one.tensors], readers, pays=pays)


def _reader(model: Any, layer: Layer, seen: dict[int, Seen]) -> Reader:
    import numpy as np

    values = constant(model, model.subgraphs[0].tensors[layer.weights])
    own = layer.in_axis == layer.out_axis  # depthwise: a scale for each input, whatever its width
    first = [layer.in_axis] if own else [layer.in_axis, layer.out_axis]
    rows = np.moveaxis(values, first, range(len(first)))
    shape = (len(rows), 1, -1) if own else (*rows.shape[:2], -1)
    return Reader(rows.reshape(shape), seen[int(layer.op.inputs[0])].power, own)
