"""Cross-layer equalisation (Nagel et al. 2019, arXiv:1906.04721): neighbouring convolutions share their channels' ranges."""

from __future__ import annotations

from collections import Counter
from typing import Any

SWEEPS = 12
_LEAST = 1e-8
_BIAS = 2  # its place among the inputs


def equalize(model: Any) -> int:
    """Scales the channels between two convolutions so that both weights have the same range in each; how many pairs.

    Exact across ReLU. ReLU6 (Clip from 0) does not scale: it becomes ReLU, which changes the function, so the result must be
    measured.
    """
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    uses = Counter(name for node in model.graph.node for name in node.input)
    uses.update(value.name for value in model.graph.output)
    pairs = _pairs(model, tensors, uses)
    names = {name for first, second in pairs for node in (first, second) for name in node.input[1:] if name}
    if not pairs or any(uses[name] > 1 for name in names):
        return 0  # a weight that two layers share cannot be scaled for one
    arrays = {name: numpy_helper.to_array(tensors[name]).copy() for name in names}
    for _ in range(SWEEPS):
        for first, second in pairs:
            _scale(first, second, arrays)
    for name, array in arrays.items():
        tensors[name].CopyFrom(numpy_helper.from_array(array.astype("float32"), name))
    _unclip(model, pairs)
    return len(pairs)


def _pairs(model: Any, tensors: dict[str, Any], uses: Counter[str]) -> list[tuple[Any, Any]]:
    users = {name: node for node in model.graph.node for name in node.input}
    found = []
    for first in model.graph.node:
        if first.op_type != "Conv" or any(name and name not in tensors for name in first.input[1:]):
            continue
        out = first.output[0]
        between = users.get(out)
        if uses[out] == 1 and between is not None and _scales(between, tensors):
            out = between.output[0]
        second = users.get(out)
        if uses[out] != 1 or second is None or second.op_type != "Conv" or second.input[0] != out:
            continue
        if all(not name or name in tensors for name in second.input[1:]) and _groups(second, tensors) is not None:
            found.append((first, second))
    return found


def _scales(node: Any, tensors: dict[str, Any]) -> bool:
    """Whether f(s x) = s f(x): ReLU, or Clip from 0, which is taken for one."""
    from onnx import numpy_helper

    if node.op_type == "Relu":
        return True
    if node.op_type != "Clip" or len(node.input) < 2 or node.input[1] not in tensors:  # noqa: PLR2004 - the lower bound
        return False
    return float(numpy_helper.to_array(tensors[node.input[1]])) == 0.0


def _groups(node: Any, tensors: dict[str, Any]) -> int | None:
    """1 for a plain convolution, its channels for a depthwise one; None for what lies between."""
    groups = next((one.i for one in node.attribute if one.name == "group"), 1)
    dims = tensors[node.input[1]].dims
    return groups if groups == 1 or (groups == dims[0] and dims[1] == 1) else None


def _scale(first: Any, second: Any, arrays: dict[str, Any]) -> None:
    before, after = arrays[first.input[1]], arrays[second.input[1]]
    found = scales(before, after)
    if found is None:
        return
    scale, axis = found
    before /= scale.reshape(-1, *[1] * (before.ndim - 1))
    if len(first.input) > _BIAS and first.input[_BIAS]:
        arrays[first.input[_BIAS]] /= scale
    after *= scale.reshape(*[-1 if place == axis else 1 for place in range(after.ndim)])


def scales(before: Any, after: Any) -> tuple[Any, int] | None:
    """What to divide the first convolution's channels by and multiply the second's with, and the axis of the second's weight
    that they lie on; None where the weights (out, in, window) do not meet.
    """
    import numpy as np

    deep = after.shape[1] == 1 and after.shape[0] == before.shape[0]
    axis = 0 if deep else 1
    if after.shape[axis] != before.shape[0]:
        return None
    wide = np.abs(before.reshape(len(before), -1)).max(axis=1)
    next_wide = np.abs(np.moveaxis(after, axis, 0).reshape(after.shape[axis], -1)).max(axis=1)
    return shared_range(wide, next_wide), axis


def shared_range(wide: Any, next_wide: Any) -> Any:
    """What the first layer's channels are divided and the second's multiplied by, so that both have the same range in each;
    1 for a channel that either leaves unused. Both are the weights' largest absolute values by channel.
    """
    import numpy as np

    alive = (wide > _LEAST) & (next_wide > _LEAST)
    scale = np.where(alive, np.sqrt(wide / np.maximum(next_wide, _LEAST)), 1.0)
    return np.maximum(scale, _LEAST)


def _unclip(model: Any, pairs: list[tuple[Any, Any]]) -> None:
    outputs = {first.output[0] for first, _ in pairs}
    inputs = {second.input[0] for _, second in pairs}
    for node in model.graph.node:
        if node.op_type == "Clip" and node.input[0] in outputs and node.output[0] in inputs:
            node.op_type = "Relu"
            del node.input[1:]
