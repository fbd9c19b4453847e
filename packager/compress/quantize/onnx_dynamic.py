"""Dynamic INT8 for ONNX: weights as integers, activation ranges measured at run time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from agent.contract.errors import ConvertError
from agent.contract.finding import WARNING, Finding
from packager.compress.quantize.onnx_static import check_excluded, quiet
from packager.onnx_model import all_nodes, load_model, need_onnxruntime

if TYPE_CHECKING:
    from packager.recipe import Recipe

# Dynamic INT8 convolutions are about 2x slower than float and ruin convolutional nets: only matrix products are taken.
OPERATORS = ("MatMul", "Gemm", "LSTM", "Attention", "EmbedLayerNormalization")


def quantize_dynamic(source: Path, result: Path, recipe: Recipe) -> list[Finding]:
    """Writes the quantised model to `result`. Raises ConvertError when no operator can be quantised."""
    need_onnxruntime()
    from onnx import TensorProto
    from onnxruntime import quantization

    model = load_model(source)
    wanted = recipe.operators or OPERATORS
    types = [node.op_type for node in all_nodes(model.graph)]
    check_excluded(recipe, [node.name for node in model.graph.node])
    if not set(types) & set(wanted):
        raise ConvertError(
            "dynamic INT8 has nothing to quantise in this model",
            expected=f"one of the operators {', '.join(wanted)}",
            fix="use --recipe int8 with --calibration (static INT8 quantises convolutions), or fp16",
            code="nothing-to-quantise",
        )
    kind = {"int8": quantization.QuantType.QInt8, "uint8": quantization.QuantType.QUInt8}[recipe.weight_type]
    try:
        with quiet():
            quantization.quantize_dynamic(
                str(source),
                str(result),
                op_types_to_quantize=list(wanted),
                per_channel=recipe.per_channel,
                weight_type=kind,
                nodes_to_exclude=list(recipe.exclude),
                # A graph whose shapes are not all known (a fused BERT) needs to be told that its tensors are floats.
                extra_options={"DefaultTensorType": TensorProto.FLOAT},
            )
    except Exception as error:
        raise ConvertError(f"onnxruntime's quantiser failed: {str(error)[:600]}", code="quantiser-failed") from error
    left = sum(kind in ("Conv", "ConvTranspose") for kind in types)
    if left:
        text = f"{left} convolutions stay in float: dynamic INT8 makes them slower and worse"
        return [Finding("float-convolutions", WARNING, text, "--recipe int8 with --calibration quantises them")]
    return []
