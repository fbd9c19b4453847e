"""Half precision for ONNX: weights and arithmetic in float16, inputs and outputs as they were."""

from __future__ import annotations

from pathlib import Path

from agent.contract.errors import ConvertError
from packager.compress.quantize.onnx_static import quiet
from packager.onnx_model import clean, load_model, need_onnxruntime, save_model


def to_half(source: Path, result: Path, *, keep_io_types: bool = True) -> tuple[Path, ...]:
    """Writes the model in float16 to `result`; returns its companions. Raises ConvertError."""
    model = load_model(source)
    need_onnxruntime()
    try:
        with quiet():
            from onnxruntime.transformers.float16 import convert_float_to_float16

            half = convert_float_to_float16(model, keep_io_types=keep_io_types)
    except Exception as error:
        raise ConvertError(f"the conversion to float16 failed: {str(error)[:600]}", code="fp16-failed") from error
    return save_model(clean(half), result)
