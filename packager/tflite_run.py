"""Running TFLite on the host, exactly: LiteRT's own kernels without delegates; and the way between real and quantised."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError
from packager.tflite_model import need

if TYPE_CHECKING:
    import numpy as np

    from agent.contract.manifest import TensorSpec
    from packager.protocols import Arrays

    Array = np.ndarray[Any, Any]


def run_tflite(
    path: Path, batches: Sequence[Arrays], inputs: Sequence[str], outputs: Sequence[str]
) -> Iterator[dict[str, Array]]:
    """The real (dequantised) outputs for each batch; names are in the order of the file. Raises ConvertError."""
    interpreter = open_interpreter(path)
    details = interpreter.get_input_details()
    for batch in batches:
        for name, detail in zip(inputs, details, strict=True):
            _set(interpreter, detail, batch[name], path.name)
        try:
            interpreter.invoke()
        except Exception as error:
            shapes = ", ".join(f"{name} {list(batch[name].shape)}" for name in inputs)
            raise ConvertError(
                f"the model does not run: {str(error)[:400]}", where=f"{path.name} on {shapes}", code="run-failed"
            ) from error
        yield {
            name: real(interpreter.get_tensor(detail["index"]), *detail["quantization"])
            for name, detail in zip(outputs, interpreter.get_output_details(), strict=True)
        }


def open_interpreter(path: Path) -> Any:
    """An interpreter without delegates, tensors not yet allocated. Raises ConvertError."""
    litert = need("ai_edge_litert.interpreter")
    kind = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        interpreter = litert.Interpreter(model_path=str(path), experimental_op_resolver_type=kind)
        interpreter.allocate_tensors()
    except Exception as error:
        raise _not_loaded(str(error), path) from error
    return interpreter


def _not_loaded(told: str, path: Path) -> ConvertError:
    custom = re.search(r"unresolved custom op: ([\w.:/-]+?)\.?(?:\s|$)", told)
    if custom is None:
        return ConvertError(f"LiteRT does not load the model: {told[:400]}", where=path.name, code="load-failed")
    return ConvertError(
        f"{custom[1]} is an operator of the model's own library, which LiteRT does not have",
        where=path.name,
        expected="builtin TFLite operators",
        fix="export the model without it (a custom operator often fuses builtin ones), "
        "or cut the graph before it and compute it in the application",
        code="unsupported-operator",
    )


def _set(interpreter: Any, detail: Mapping[str, Any], value: Array, where: str) -> None:
    current = interpreter.get_tensor(detail["index"]) if list(detail["shape"]) != list(value.shape) else None
    try:
        if current is not None and list(current.shape) != list(value.shape):
            interpreter.resize_tensor_input(detail["index"], value.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(detail["index"], value)
    except Exception as error:
        raise ConvertError(
            f"the input {detail['name']!r} does not take {list(value.shape)} {value.dtype}: {str(error)[:300]}",
            where=where,
            code="input",
        ) from error


def real(values: Array, scale: float, zero_point: int) -> Array:
    """Quantised values as the numbers they stand for; a scale of 0 means that they are not quantised."""
    if not scale:
        return values
    numbers: Array = ((values.astype("float64") - zero_point) * scale).astype("float32")
    return numbers


def quantize(values: Array, dtype: str, scale: float, zero_point: int) -> Array:
    """Real numbers in the integers of a tensor: rounded to the nearest, held within the type's range."""
    import numpy as np

    limits = np.iinfo(dtype)
    integers: Array = np.clip(np.round(values.astype("float64") / scale) + zero_point, limits.min, limits.max).astype(
        dtype
    )
    return integers


def fit(values: Array, original: TensorSpec, lowered: TensorSpec, scale: Mapping[str, Any] | None = None) -> Array:
    """A sample of the original's input or output as the lowered model has it: layout, integer width, quantisation."""
    import numpy as np

    if lowered.layout == "nhwc" and original.layout != "nhwc":
        values = np.ascontiguousarray(np.moveaxis(values, -3, -1))
    if scale is not None and values.dtype.kind == "f":
        return quantize(values, lowered.dtype, scale["scale"], scale["zero_point"])
    if values.dtype.kind in "iu" and lowered.dtype != str(values.dtype) and not scale:
        return values.astype(lowered.dtype)
    return values
