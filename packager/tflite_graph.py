"""What a converter leaves superfluous in a TFLite graph, taken out where that is exactly equal; and what stays, counted."""

from __future__ import annotations

import hashlib
from typing import Any

from agent.contract.finding import INFO, Finding
from packager.tflite_model import compact, constant, operator_counts, operator_name, schema, text

_WINDOWS = ("CONV_2D", "DEPTHWISE_CONV_2D", "MAX_POOL_2D")
_FUSING = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "SUB", "MUL", "AVERAGE_POOL_2D")
_LONE = ("RELU", "RELU6", "RELU_N1_TO_1")  # fused they have the same names
_RANK = 4
_WORTH = 1024  # bytes of a constant that is looked at twice


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


def fold_activations(model: Any) -> int:
    """Takes a RELU or RELU6 on its own into the operator that alone feeds it; the number of operators removed.

    Delegates compute a fused one at no cost, and in INT8 a lone one not at all: it would split the graph in two.
    """
    kinds = schema().ActivationFunctionType
    removed = 0
    for graph in model.subgraphs:
        made_by = {int(index): op for op in graph.operators for index in op.outputs}
        reads = [int(index) for op in graph.operators for index in op.inputs]
        ends = {int(index) for index in graph.outputs}
        for op in list(graph.operators):
            kind = operator_name(model, op)
            source = int(op.inputs[0]) if kind in _LONE else -1
            maker = made_by.get(source)
            if maker is None or operator_name(model, maker) not in _FUSING or reads.count(source) > 1 or source in ends:
                continue
            if maker.builtinOptions.fusedActivationFunction != kinds.NONE:
                continue
            maker.builtinOptions.fusedActivationFunction = getattr(kinds, kind)
            maker.outputs = [int(op.outputs[0])]
            made_by[int(op.outputs[0])] = maker
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


def share_constants(model: Any) -> int:
    """Constants that a converter wrote once per use (the weights of an unrolled LSTM, once per step) become one; the bytes
    saved.
    """
    saved = 0
    for graph in model.subgraphs:
        first: dict[tuple[Any, ...], int] = {}
        place: dict[int, int] = {}
        ends = {int(index) for side in (graph.inputs, graph.outputs) for index in side}
        for index, tensor in enumerate(graph.tensors):
            data = model.buffers[tensor.buffer].data
            shape = tuple(int(size) for size in tensor.shape) if tensor.shape is not None else ()
            # Biases stay apart: as integers each has the scale of its own operator.
            if data is None or len(data) < _WORTH or len(shape) == 1 or index in ends or _has_scales(tensor):
                continue
            key = (hashlib.sha256(bytes(memoryview(data))).digest(), int(tensor.type), shape)
            place[index] = first.setdefault(key, index)
            saved += len(data) if place[index] != index else 0
        for op in graph.operators:
            op.inputs = [place.get(int(index), int(index)) for index in op.inputs]
    if saved:
        compact(model)
    return saved


def _has_scales(tensor: Any) -> bool:
    return tensor.quantization is not None and tensor.quantization.scale is not None


def fold_flattening(model: Any) -> int:
    """A map brought back to channels first only to be flattened for a FULLY_CONNECTED: the weights' columns are put into
    the map's own order instead, and the TRANSPOSE goes. The number of TRANSPOSEs removed.
    """
    removed = 0
    for graph in model.subgraphs:
        for op in list(graph.operators):
            users = _chain(model, graph, op)
            if users is None:
                continue
            reshape, product = users
            _reorder(model, graph, op, product)
            reshape.inputs[0] = int(op.inputs[0])
            graph.operators.remove(op)
            removed += 1
    if removed:
        compact(model)
    return removed


def _chain(model: Any, graph: Any, op: Any) -> tuple[Any, Any] | None:
    """The RESHAPE and the FULLY_CONNECTED after a TRANSPOSE to channels first, if nothing else uses what is between."""
    if operator_name(model, op) != "TRANSPOSE":
        return None
    order = constant(model, graph.tensors[op.inputs[1]])
    if order is None or order.tolist() != [0, 3, 1, 2] or int(graph.tensors[op.inputs[0]].shape[0]) != 1:
        return None
    steps: list[Any] = []
    for wanted in ("RESHAPE", "FULLY_CONNECTED"):
        out = int((steps[-1] if steps else op).outputs[0])
        users = _users(graph, out)
        if len(users) != 1 or operator_name(model, users[0]) != wanted or int(users[0].inputs[0]) != out:
            return None
        if out in [int(index) for index in graph.outputs]:
            return None
        steps.append(users[0])
    weights = graph.tensors[steps[1].inputs[1]]
    shape = [int(size) for size in graph.tensors[op.inputs[0]].shape]
    flat = shape[1] * shape[2] * shape[3]
    values = constant(model, weights)
    shared = sum(int(weights.buffer) == int(tensor.buffer) for tensor in graph.tensors) > 1
    shared |= len(_users(graph, int(steps[1].inputs[1]))) > 1
    if values is None or values.dtype != "float32" or values.ndim != 2 or values.shape[1] != flat or shared:  # noqa: PLR2004
        return None
    return steps[0], steps[1]


def _reorder(model: Any, graph: Any, op: Any, product: Any) -> None:
    import numpy as np

    _, height, width, channels = (int(size) for size in graph.tensors[op.inputs[0]].shape)
    tensor = graph.tensors[product.inputs[1]]
    values = constant(model, tensor)
    moved = values.reshape(-1, channels, height, width).transpose(0, 2, 3, 1).reshape(values.shape)
    model.buffers[tensor.buffer].data = np.frombuffer(np.ascontiguousarray(moved).tobytes(), dtype=np.uint8)


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
