"""Explicit INT8 as TensorRT wants it: symmetric Q/DQ pairs, per-channel weights, biases in float, nothing before a ReLU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from packager.compress.quantize.onnx_static import operators, quantize_static

if TYPE_CHECKING:
    from agent.contract.finding import Finding
    from packager.calibration import CalibrationData
    from packager.recipe import Recipe

# Pass-through operators are left to TensorRT, which moves Q/DQ over them itself.
COMPUTE = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def quantize(
    source: Path,
    result: Path,
    calibration: CalibrationData,
    recipe: Recipe,
    progress: Callable[[str], None],
    *,
    strong: bool,
    cache: Path | None = None,
) -> list[Finding]:
    """Writes the Q/DQ model to `result`. `recipe` has the types int8. Raises ConvertError.

    With `strong` typing (TensorRT 10 and newer) weights are stored as int8; older ones want float weights with a Q/DQ pair.
    """
    import dataclasses

    wanted = recipe.operators or (COMPUTE if recipe.scope != "all" else operators(recipe) or ())
    recipe = dataclasses.replace(recipe, operators=wanted)
    extra = {
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "AddQDQPairToWeight": not strong,
        # TensorRT's parser refuses an int32 bias.
        "QuantizeBias": False,
        # Q/DQ between a convolution and its activation would keep the two from fusing.
        "OpTypesToExcludeOutputQuantization": list(wanted or COMPUTE),
    }
    return quantize_static(source, result, calibration, recipe, progress, extra, cache)
