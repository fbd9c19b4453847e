"""Magnitude pruning of an ONNX file's weights: one shot, no fine-tuning, for sources that cannot be trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent.contract.errors import ConvertError
from packager.compress.prune.schedule import sparsities
from packager.onnx_model import load_model, save_model

_OPERATORS = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}  # which input holds the weights


def prune_onnx(source: Path, result: Path, share: float, *, whole_network: bool = True) -> float:
    """Writes the model with the smallest `share` of its weights at zero; the share of zeros that it has then.

    Raises ConvertError when no operator has weights, UsageError for a share outside 0..1.
    """
    import numpy as np
    from onnx import numpy_helper

    sparsities(share)
    model = load_model(source)
    weights = _weights(model)
    if not weights:
        raise ConvertError("no operator of the model has weights to prune", code="nothing-to-prune")
    arrays = {name: numpy_helper.to_array(tensor).copy() for name, tensor in weights.items()}
    every = np.concatenate([np.abs(one).ravel() for one in arrays.values()])
    common = _threshold(every, share)
    zeros = 0
    for name, array in arrays.items():
        bound = common if whole_network else _threshold(np.abs(array).ravel(), share)
        array[np.abs(array) <= bound] = 0
        zeros += int((array == 0).sum())
        weights[name].CopyFrom(numpy_helper.from_array(array, name))
    save_model(model, result)
    return float(zeros / every.size)


def _threshold(sizes: Any, share: float) -> Any:
    import numpy as np

    last = max(0, round(share * sizes.size) - 1)
    return np.partition(sizes, last)[last]


def _weights(model: Any) -> dict[str, Any]:
    floats = {one.name: one for one in model.graph.initializer if one.data_type == one.FLOAT and len(one.dims) > 1}
    names = [
        node.input[_OPERATORS[node.op_type]]
        for node in model.graph.node
        if node.op_type in _OPERATORS and len(node.input) > _OPERATORS[node.op_type]
    ]
    return {name: floats[name] for name in names if name in floats}
