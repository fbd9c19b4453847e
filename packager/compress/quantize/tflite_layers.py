"""The operators of a TFLite graph that multiply: multiply-adds, weights, and whether they compute in INT8."""

from __future__ import annotations

import math
from typing import Any

from packager.compress.onnx_layers import Layer
from packager.compress.quantize.tflite import COMPUTE
from packager.tflite_model import constant, operator_name, text

_WEIGHTS = {"TRANSPOSE_CONV": 1}  # where the weights stand among the inputs, if not at 1
_DATA = {"TRANSPOSE_CONV": 2}  # where the values stand, if not at 0
_INT8, _FLOAT = 9, 0  # TensorType.INT8 and FLOAT32 in TFLite's schema
_HYBRID = ("FULLY_CONNECTED", "BATCH_MATMUL")  # round their float values themselves where their weights are INT8


def compute_layers(model: Any) -> list[Layer]:
    """In the order of the file."""
    graph = model.subgraphs[0]
    rows = []
    for op in graph.operators:
        kind = operator_name(model, op)
        if kind not in COMPUTE:
            continue
        weight = graph.tensors[int(op.inputs[_WEIGHTS.get(kind, 1)])]
        out = graph.tensors[int(op.outputs[0])]
        data = graph.tensors[int(op.inputs[_DATA.get(kind, 0)])]
        held = math.prod(int(size) for size in weight.shape) if constant(model, weight) is not None else 0
        rows.append(Layer(text(out.name), kind, _macs(kind, _sizes(data), _sizes(weight), _sizes(out)), held))
    return rows


def computed_in_int8(model: Any) -> list[bool]:
    """For each of them, whether it multiplies INT8 with INT8, be it that it rounds its values itself (dynamic INT8)."""
    graph = model.subgraphs[0]
    found = []
    for op in graph.operators:
        kind = operator_name(model, op)
        if kind in COMPUTE:
            pair = (op.inputs[_DATA.get(kind, 0)], op.inputs[_WEIGHTS.get(kind, 1)])
            values, weights = (graph.tensors[int(index)].type for index in pair)
            taken = values == _INT8 or (values == _FLOAT and kind in _HYBRID)
            found.append(taken and weights == _INT8)
    return found


def _sizes(tensor: Any) -> list[int]:
    return [int(size) for size in tensor.shape]


def _macs(kind: str, data: list[int], weight: list[int], out: list[int]) -> int:
    if kind == "DEPTHWISE_CONV_2D":  # weights are 1, height, width, channels
        return math.prod(out) * weight[1] * weight[2]
    if kind == "CONV_2D":  # weights are outputs, height, width, inputs
        return math.prod(out) * math.prod(weight[1:])
    if kind == "TRANSPOSE_CONV":
        return math.prod(data) * weight[0] * weight[1] * weight[2]
    return math.prod(out) * (weight[-1] if kind == "FULLY_CONNECTED" else data[-1])
