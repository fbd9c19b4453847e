"""What a converter leaves superfluous in a TFLite graph, taken out where that is exactly equal; and what stays, counted."""

from __future__ import annotations

from typing import Any

from agent.contract.finding import INFO, Finding
from packager.tflite_model import compact, constant, operator_counts, operator_name, schema, text

_WINDOWS = ("CONV_2D", "DEPTHWISE_CONV_2D", "MAX_POOL_2D")
_RANK = 4


def fold_pads(model: Any) -> int:
    """Puts PADs into the windows that follow, where SAME padding is exactly the same; the number of PADs removed.

    A convolution's SAME pads zeros, total = max((ceil(in / stride) - 1) * stride + (kernel - 1) * dilation + 1 - in, 0),
    the smaller half first (TFLite: kernels/padding.h). Symmetric padding of an even map with stride 2 is another function
    and stays. A max pool's SAME ignores what lies outside: the same as padding with minus infinity.
    """
    removed = 0
    for graph in model.subgraphs:
        for op in list(graph.operators):
            if operator_name(model, op) in ("PAD", "PADV2") and _foldable(model, graph, op):
                for user in _users(graph, int(op.outputs[0])):
                    user.inputs[0] = int(op.inputs[0])
                    user.builtinOptions.padding = schema().Padding.SAME
                graph.operators.remove(op)
                removed += 1
    if removed:
        compact(model)
    return removed


def _users(graph: Any, tensor: int) -> list[Any]:
    return [op for op in graph.operators if tensor in [int(index) for index in op.inputs]]


def _foldable(model: Any, graph: Any, pad: Any) -> bool:
    users = _users(graph, int(pad.outputs[0]))
    if not users or int(pad.outputs[0]) in [int(index) for index in graph.outputs]:
        return False
    amounts = constant(model, graph.tensors[pad.inputs[1]])
    source = graph.tensors[pad.inputs[0]]
    if amounts is None or amounts.shape != (_RANK, 2) or source.shape is None or amounts[0].any() or amounts[3].any():
        return False
    return all(_same(model, graph, pad, user, amounts.tolist()) for user in users)


def _same(model: Any, graph: Any, pad: Any, user: Any, amounts: list[list[int]]) -> bool:
    kind, options = operator_name(model, user), user.builtinOptions
    if kind not in _WINDOWS or int(user.inputs[0]) != int(pad.outputs[0]) or options.padding != schema().Padding.VALID:
        return False
    if not _right_value(model, graph, pad, kind):
        return False
    size = [int(value) for value in graph.tensors[pad.inputs[0]].shape][1:3]
    strides = (options.strideH, options.strideW)
    if kind == "MAX_POOL_2D":
        kernel, dilation = (options.filterHeight, options.filterWidth), (1, 1)
    else:
        shape = graph.tensors[user.inputs[1]].shape
        kernel, dilation = (int(shape[1]), int(shape[2])), (options.dilationHFactor, options.dilationWFactor)
    return all(same_padding(size[i], kernel[i], strides[i], dilation[i]) == tuple(amounts[i + 1]) for i in (0, 1))


def _right_value(model: Any, graph: Any, pad: Any, kind: str) -> bool:
    """Zeros before a convolution, minus infinity (or the least float) before a max pool."""
    if operator_name(model, pad) == "PAD":
        return kind != "MAX_POOL_2D"
    value = constant(model, graph.tensors[pad.inputs[2]])
    if value is None or value.size != 1 or value.dtype.kind != "f":
        return False
    import numpy as np

    number = float(value.ravel()[0])
    return number <= float(np.finfo("float32").min) if kind == "MAX_POOL_2D" else number == 0.0


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """What SAME pads before and after an axis of `size`."""
    out = -(-size // stride)
    total = max((out - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def flatten_biases(model: Any) -> int:
    """Biases of the shape [1, .., 1, N] become [N]: quantisers put their scales on the last axis of the weights' first."""
    changed = 0
    for graph in model.subgraphs:
        for op in graph.operators:
            if operator_name(model, op) != "FULLY_CONNECTED" or len(op.inputs) <= 2 or op.inputs[2] < 0:  # noqa: PLR2004
                continue
            tensor = graph.tensors[op.inputs[2]]
            shape = [int(size) for size in tensor.shape] if tensor.shape is not None else []
            if len(shape) > 1 and all(size == 1 for size in shape[:-1]) and constant(model, tensor) is not None:
                tensor.shape = [shape[-1]]
                changed += 1
    return changed


def layout_findings(model: Any) -> list[Finding]:
    """TRANSPOSE and PAD operators that stay: each copies a whole map."""
    counts = operator_counts(model)
    stay = {name: counts[name] for name in ("TRANSPOSE", "PAD", "PADV2") if counts[name]}
    if not stay:
        return []
    told = ", ".join(f"{count} {name}" for name, count in stay.items())
    text_ = f"operators that only move data stay in the graph: {told}"
    advice = "pads of an even map with stride 2 cannot be SAME padding; transposes come from layouts in the model"
    return [Finding("layout-operators", INFO, text_, advice)]


def float_operators(model: Any) -> dict[str, int]:
    """The operators that compute on floats, by name; conversions between float and integer are not counted."""
    kinds = (schema().TensorType.FLOAT32, schema().TensorType.FLOAT16)
    found: dict[str, int] = {}
    for graph in model.subgraphs:
        for op in graph.operators:
            name = operator_name(model, op)
            if name in ("QUANTIZE", "DEQUANTIZE"):
                continue
            if any(index >= 0 and graph.tensors[index].type in kinds for index in [*op.inputs, *op.outputs]):
                found[name] = found.get(name, 0) + 1
    return found


def label(model: Any, graph: Any, op: Any) -> str:
    """The operator with the layer that made it, as far as the converter kept its name."""
    return f"{operator_name(model, op)} ({text(graph.tensors[op.outputs[0]].name)[-80:]})"
