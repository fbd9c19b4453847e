"""What a model is before anything is made of it: inputs, outputs, operators, weights, multiply-adds."""

from __future__ import annotations

import collections
import dataclasses
from typing import TYPE_CHECKING, Any

from packager.pipeline import find_source
from packager.shapes import check_shapes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agent.contract.manifest import TensorSpec
    from packager.artifact import Artifact
    from packager.shapes import Shape


@dataclasses.dataclass(frozen=True)
class Overview:
    """`parameters` and `macs` (of one sample) are None where the format does not tell them; `operators` counts nodes;
    `quantization` has each integer input and output's `scale` and `zero_point`: real = (q - zero_point) * scale.
    """

    format: str
    digest: str
    size_bytes: int
    opset: int | None
    quantized: bool
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    operators: dict[str, int]
    parameters: int | None = None
    macs: int | None = None
    quantization: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)


def overview(model: str, shapes: Mapping[str, Shape]) -> Overview:
    """Of a model file, or of what a named factory makes; `shapes` size inputs for the multiply-adds.

    Raises UsageError, ConvertError.
    """
    artifact = find_source(model).open(model, {"shapes": shapes, "output_names": ()})
    check_shapes(shapes, artifact.inputs, may_free=False)
    size = artifact.size_bytes if artifact.weights_bytes is None else artifact.weights_bytes
    told = Overview(
        format=artifact.format,
        digest=artifact.digest,
        size_bytes=size,
        opset=artifact.opset,
        quantized=artifact.quantized,
        inputs=list(artifact.inputs),
        outputs=list(artifact.outputs),
        operators={},
    )
    if artifact.format == "onnx":
        return dataclasses.replace(told, **_onnx(artifact, shapes))
    if artifact.format == "tflite":
        from packager.tflite_model import operator_counts, quantization_of, read_model

        read = read_model(artifact.path)
        counts = _most_first(operator_counts(read).elements())
        return dataclasses.replace(told, operators=counts, quantization=quantization_of(read))
    return told


def _onnx(artifact: Artifact, shapes: Mapping[str, Shape]) -> dict[str, Any]:
    from packager.onnx_model import all_nodes, load_model

    graph = load_model(artifact.path, weights=False).graph
    return {
        "operators": _most_first(_name(node) for node in all_nodes(graph) if node.op_type != "Constant"),
        "parameters": _parameters(graph),
        "macs": _macs(artifact, shapes),
    }


def _parameters(graph: Any) -> int:
    """What initialisers hold, and Constant nodes, where some exporters keep weights; sizes and axes (int64) do not count."""
    import math

    import onnx

    constants = [
        one.t for node in graph.node if node.op_type == "Constant" for one in node.attribute if one.HasField("t")
    ]
    tensors = [tensor for tensor in (*graph.initializer, *constants) if tensor.data_type != onnx.TensorProto.INT64]
    return sum(math.prod(tensor.dims) for tensor in tensors)


def _macs(artifact: Artifact, shapes: Mapping[str, Shape]) -> int | None:
    """Counted by running one sample; None where a free size has to be named first."""
    from agent.contract.errors import UsageError
    from packager.bundle.golden import integer_bounds, sized
    from packager.calibration import random_data
    from packager.compress.onnx_layers import layers_of
    from packager.onnx_model import lift_constants, load_model

    try:
        specs = sized(artifact, shapes)
    except UsageError:
        return None
    feed = next(iter(random_data(specs, integer_bounds(artifact), 1).feeds()))
    return sum(layer.macs for layer in layers_of(lift_constants(load_model(artifact.path)), feed))


def _name(node: Any) -> str:
    return str(node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}")


def _most_first(names: Iterable[str]) -> dict[str, int]:
    return dict(collections.Counter(sorted(names)).most_common())
