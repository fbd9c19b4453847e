"""Multiplications by a number for each channel, put into a float TFLite graph before its matrix products: what these read is
narrowed there, where nothing before them can do it (a LayerNorm whose result a residual sum reads, too).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from packager.compress.tflite_channels import FACTOR, Layer, add_constant, reads_each
from packager.tflite_model import compact, constant, operator_code, schema, text

if TYPE_CHECKING:
    from collections.abc import Sequence


def insert_factors(model: Any, layers: Sequence[Layer], scalable: set[int]) -> list[Layer]:
    """Puts a multiplication by ones before the matrix products among the layers, but for those that read a tensor of
    `scalable`: one for all that read the same.
    """
    graph = model.subgraphs[0]
    readers: dict[int, list[Any]] = {}
    for one in layers:
        data = int(one.op.inputs[0])
        if one.kind == "FULLY_CONNECTED" and data not in scalable and reads_each(graph, one):
            readers.setdefault(data, []).append(one.op)
    return [_insert(model, data, ops) for data, ops in readers.items()]


def drop_idle(model: Any, factors: Sequence[Layer]) -> int:
    """Takes out those that multiply by ones still; how many are left."""
    graph = model.subgraphs[0]
    idle: dict[int, int] = {}
    for one in factors:
        values = constant(model, graph.tensors[one.weights])
        if values is not None and (values == 1).all():
            idle[int(one.op.outputs[0])] = int(one.op.inputs[0])
    if idle:
        for op in graph.operators:
            op.inputs = [idle.get(int(index), int(index)) for index in op.inputs]
        graph.operators = [op for op in graph.operators if not len(op.outputs) or int(op.outputs[0]) not in idle]
        compact(model)
    return len(factors) - len(idle)


def _insert(model: Any, data: int, readers: Sequence[Any]) -> Layer:
    """A multiplication between a tensor and these operators that read it, before the first of them."""
    import numpy as np

    fb, graph = schema(), model.subgraphs[0]
    source = graph.tensors[data]
    name = f"{text(source.name)}{FACTOR}"
    ones = add_constant(model, f"{name}_by", np.ones(int(source.shape[-1]), np.float32))
    made = fb.TensorT()
    made.name, made.shape, made.type, made.buffer = name.encode(), list(source.shape), source.type, 0
    graph.tensors.append(made)
    op = fb.OperatorT()
    op.opcodeIndex, op.inputs, op.outputs = operator_code(model, "MUL"), [data, ones], [len(graph.tensors) - 1]
    op.builtinOptions, op.builtinOptionsType = fb.MulOptionsT(), fb.BuiltinOptions.MulOptions
    place = next(index for index, one in enumerate(graph.operators) if any(one is reader for reader in readers))
    for reader in readers:
        reader.inputs = [op.outputs[0], *(int(index) for index in reader.inputs[1:])]
    graph.operators.insert(place, op)
    return Layer("MUL", op, ones)
