"""An INT8 TFLite model as plain C99 without any dependency, bit for bit the reference kernels' results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any

from agent.contract.errors import ConvertError
from packager.micro.fixed_point import half_away, mean_multiplier, quantize_multiplier, softmax_scale
from packager.micro.plain_writer import Writer, plan_memory
from packager.tflite_graph import label, same_padding
from packager.tflite_model import constant, operator_name, schema

_RANK = 4


def can_write(model: Any) -> str:
    """Why the model cannot be plain C, or nothing."""
    if len(model.subgraphs) != 1:
        return "it has more than one graph"
    graph = model.subgraphs[0]
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        return "it has more than one input or output"
    unknown = sorted({operator_name(model, op) for op in graph.operators} - set(_RULES))
    if unknown:
        return f"there is no plain C for {', '.join(unknown)}"
    return ""


def write_plain_c(model: Any) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The files (model.c, model.h, kernels.h) and facts: RAM and constant bytes. Raises ConvertError, code "not-plain-c"."""
    why = can_write(model)
    if why:
        raise ConvertError(f"the model cannot become plain C: {why}", code="not-plain-c")
    writer = Writer(model)
    arena = plan_memory(writer)
    for number, op in enumerate(writer.graph.operators):
        try:
            _RULES[operator_name(model, op)](writer, op, f"op{number}")
        except ConvertError as error:
            error.where = label(model, writer.graph, op)
            raise
    kernels = files("packager.micro").joinpath("runtime/kernels.h").read_bytes()
    contents = {
        "model.c": _source(writer, arena).encode(),
        "model.h": _header(writer, arena).encode(),
        "kernels.h": kernels,
    }
    return contents, {"arena_bytes": arena, "constant_bytes": writer.weights_bytes}


def _source(writer: Writer, arena: int) -> str:
    graph = writer.graph
    body = "\n".join(f"    {call}" for call in writer.calls)
    constants = "\n".join(writer.data)
    return f"""/* Written by edgepack. Plain C99, no dependency; results are those of TensorFlow Lite's reference kernels. */
#include "model.h"
#include "kernels.h"

{constants}

static int8_t arena[{arena}];

int8_t *model_input(void)
{{
    return {writer.place[int(graph.inputs[0])]};
}}

const int8_t *model_output(void)
{{
    return {writer.place[int(graph.outputs[0])]};
}}

void model_run(void)
{{
{body}
}}
"""


def _header(writer: Writer, arena: int) -> str:
    graph = writer.graph
    start, end = int(graph.inputs[0]), int(graph.outputs[0])
    lines = []
    for name, index in (("INPUT", start), ("OUTPUT", end)):
        scale, zero = writer.scale(index)
        shape = " x ".join(str(size) for size in writer.shape(index))
        lines += [
            f"#define MODEL_{name}_SIZE {writer.size(index)} /* {shape} */",
            f"#define MODEL_{name}_SCALE {scale!r}f",
            f"#define MODEL_{name}_ZERO_POINT {zero}",
        ]
    defines = "\n".join(lines)
    return f"""/* Written by edgepack. real = (integer - ZERO_POINT) * SCALE */
#ifndef EDGEPACK_MODEL_H
#define EDGEPACK_MODEL_H
#include <stdint.h>

{defines}
#define MODEL_ARENA_SIZE {arena} /* static RAM, in bytes */

int8_t *model_input(void);         /* write MODEL_INPUT_SIZE values here; model_run overwrites them */
void model_run(void);
const int8_t *model_output(void);  /* MODEL_OUTPUT_SIZE values, until the next model_run or write to the input */

#endif
"""


def _activation(writer: Writer, index: int, kind: int) -> tuple[int, int]:
    """The integer range of a fused activation."""
    import numpy as np

    scale, zero = writer.scale(index)
    kinds = schema().ActivationFunctionType
    bounds = {
        kinds.NONE: (None, None),
        kinds.RELU: (0.0, None),
        kinds.RELU6: (0.0, 6.0),
        kinds.RELU_N1_TO_1: (-1.0, 1.0),
    }
    if kind not in bounds:
        raise ConvertError("a fused activation that plain C has not", expected="ReLU or ReLU6", code="not-plain-c")

    def at(value: float | None, limit: int) -> int:
        if value is None:
            return limit
        return max(-128, min(127, zero + half_away(float(np.float32(value) / np.float32(scale)))))

    return at(bounds[kind][0], -128), at(bounds[kind][1], 127)


def _multipliers(writer: Writer, op: Any, name: str, *, dense: bool) -> tuple[str, str, int]:
    """Writes weights' multipliers and shifts; their arrays and whether there is one for each channel."""
    import numpy as np

    source, target = writer.scale(int(op.inputs[0]))[0], writer.scale(int(op.outputs[0]))[0]
    scales = np.asarray(writer.tensor(int(op.inputs[1])).quantization.scale, "float32")
    one = len(scales) == 1
    if one and dense:
        # For a single scale FULLY_CONNECTED multiplies in float32 first (GetQuantizedConvolutionMultipler).
        found = [quantize_multiplier(float(np.float32(source) * scales[0]) / target)]
    else:
        found = [quantize_multiplier(source * float(scale) / target) for scale in scales]
    if one and not dense:
        channels = writer.shape(int(op.outputs[0]))[-1]
        found = found * channels
    multiplier = writer.array(f"{name}_multiplier", "int32_t", np.array([pair[0] for pair in found]))
    shift = writer.array(f"{name}_shift", "int8_t", np.array([pair[1] for pair in found]))
    return multiplier, shift, int(len(found) > 1)


def _weights(writer: Writer, op: Any, name: str) -> tuple[str, str]:
    values = constant(writer.model, writer.tensor(int(op.inputs[1])))
    if values is None or values.dtype != "int8":
        raise ConvertError("weights that are not int8 constants", code="not-plain-c")
    weights = writer.array(f"{name}_weights", "int8_t", values)
    if len(op.inputs) > 2 and op.inputs[2] >= 0:  # noqa: PLR2004 - the third input is the bias
        return weights, writer.array(
            f"{name}_bias", "int32_t", constant(writer.model, writer.tensor(int(op.inputs[2])))
        )
    return weights, "0"


def _window(writer: Writer, op: Any, name: str, kernel: Sequence[int], dilation: Sequence[int]) -> str:
    source, target = int(op.inputs[0]), int(op.outputs[0])
    _, in_h, in_w, in_c = _map(writer, source)
    _, out_h, out_w, out_c = _map(writer, target)
    options = op.builtinOptions
    stride = (options.strideH, options.strideW)
    same = options.padding == schema().Padding.SAME
    pads = [same_padding(n, kernel[i], stride[i], dilation[i])[0] if same else 0 for i, n in enumerate((in_h, in_w))]
    low, high = _activation(writer, target, options.fusedActivationFunction)
    values = [in_h, in_w, in_c, out_h, out_w, out_c, *kernel, *stride, *dilation, *pads]
    values += [writer.scale(source)[1], writer.scale(target)[1], low, high]
    writer.data.append(f"static const ep_window {name}_window = {{{', '.join(map(str, values))}}};")
    return f"&{name}_window"


def _map(writer: Writer, index: int) -> list[int]:
    shape = writer.shape(index)
    if len(shape) != _RANK or shape[0] != 1:
        raise ConvertError(f"a map of the shape {shape}", expected="[1, height, width, channels]", code="not-plain-c")
    return shape


def _ends(writer: Writer, op: Any) -> tuple[str, str]:
    return writer.place[int(op.inputs[0])], writer.place[int(op.outputs[0])]


def _conv(writer: Writer, op: Any, name: str) -> None:
    options = op.builtinOptions
    kernel = writer.shape(int(op.inputs[1]))
    if kernel[3] != _map(writer, int(op.inputs[0]))[3]:
        raise ConvertError("a grouped convolution", code="not-plain-c")
    window = _window(writer, op, name, kernel[1:3], (options.dilationHFactor, options.dilationWFactor))
    _windowed(writer, op, name, "ep_conv", window)


def _depthwise(writer: Writer, op: Any, name: str) -> None:
    options = op.builtinOptions
    kernel = writer.shape(int(op.inputs[1]))
    window = _window(writer, op, name, kernel[1:3], (options.dilationHFactor, options.dilationWFactor))
    _windowed(writer, op, name, "ep_depthwise", window)


def _windowed(writer: Writer, op: Any, name: str, kernel: str, window: str) -> None:
    weights, bias = _weights(writer, op, name)
    multiplier, shift, _ = _multipliers(writer, op, name, dense=False)
    source, target = _ends(writer, op)
    writer.calls.append(f"{kernel}({window}, {source}, {weights}, {bias}, {multiplier}, {shift}, {target});")


def _pool(writer: Writer, op: Any, name: str) -> None:
    options = op.builtinOptions
    window = _window(writer, op, name, (options.filterHeight, options.filterWidth), (1, 1))
    average = int(operator_name(writer.model, op) == "AVERAGE_POOL_2D")
    source, target = _ends(writer, op)
    writer.calls.append(f"ep_pool({window}, {average}, {source}, {target});")


def _dense(writer: Writer, op: Any, name: str) -> None:
    weights, bias = _weights(writer, op, name)
    multiplier, shift, per_channel = _multipliers(writer, op, name, dense=True)
    m, n = writer.shape(int(op.inputs[1]))
    low, high = _activation(writer, int(op.outputs[0]), op.builtinOptions.fusedActivationFunction)
    zero_in, zero_out = writer.scale(int(op.inputs[0]))[1], writer.scale(int(op.outputs[0]))[1]
    source, target = _ends(writer, op)
    for row in range(writer.size(int(op.inputs[0])) // n):
        writer.calls.append(
            f"ep_dense({source} + {row * n}, {n}, {zero_in}, {weights}, {bias}, {multiplier}, {shift}, {per_channel}, {m}, "
            f"{zero_out}, {low}, {high}, {target} + {row * m});"
        )


def _add(writer: Writer, op: Any, name: str) -> None:
    import numpy as np

    left, right, target = int(op.inputs[0]), int(op.inputs[1]), int(op.outputs[0])
    if writer.shape(left) != writer.shape(right):
        raise ConvertError("an ADD that broadcasts", expected="two maps of one shape", code="not-plain-c")
    (scale_a, zero_a), (scale_b, zero_b), (scale_out, zero_out) = map(writer.scale, (left, right, target))
    twice = 2 * max(scale_a, scale_b)
    pairs = [quantize_multiplier(scale / twice) for scale in (scale_a, scale_b)]
    out = quantize_multiplier(twice / (float(np.float32(scale_out)) * (1 << 20)))
    low, high = _activation(writer, target, op.builtinOptions.fusedActivationFunction)
    values = [zero_a, pairs[0][0], zero_b, pairs[1][0], zero_out, out[0], low, high, pairs[0][1], pairs[1][1], out[1]]
    writer.data.append(f"static const ep_sum {name}_sum = {{{', '.join(map(str, values))}}};")
    sources = [
        writer.place[i]
        if constant(writer.model, writer.tensor(i)) is None
        else writer.array(f"{name}_{side}", "int8_t", constant(writer.model, writer.tensor(i)))
        for side, i in (("a", left), ("b", right))
    ]
    writer.calls.append(
        f"ep_add(&{name}_sum, {sources[0]}, {sources[1]}, {writer.size(target)}, {writer.place[target]});"
    )


def _mean(writer: Writer, op: Any, name: str) -> None:
    del name
    source, target = int(op.inputs[0]), int(op.outputs[0])
    _, height, width, channels = _map(writer, source)
    axes = constant(writer.model, writer.tensor(int(op.inputs[1])))
    if axes is None or sorted(int(axis) % _RANK for axis in axes.ravel()) != [1, 2]:
        raise ConvertError("a MEAN over other axes than height and width", code="not-plain-c")
    (scale_in, zero_in), (scale_out, zero_out) = writer.scale(source), writer.scale(target)
    multiplier, shift = mean_multiplier(scale_in / scale_out, height * width)
    places = f"{writer.place[source]}, {height * width}, {channels}"
    writer.calls.append(f"ep_mean({places}, {zero_in}, {multiplier}, {shift}, {zero_out}, {writer.place[target]});")


def _reshape(writer: Writer, op: Any, name: str) -> None:
    del writer, op, name  # the same bytes in the same place


def _rescale(writer: Writer, op: Any, name: str) -> None:
    """RELU, RELU6 and QUANTIZE between two int8 tensors."""
    del name
    source, target = int(op.inputs[0]), int(op.outputs[0])
    (scale_in, zero_in), (scale_out, zero_out) = writer.scale(source), writer.scale(target)
    multiplier, shift = quantize_multiplier(scale_in / scale_out)
    kinds = schema().ActivationFunctionType
    kind = {"RELU": kinds.RELU, "RELU6": kinds.RELU6, "QUANTIZE": kinds.NONE}[operator_name(writer.model, op)]
    low, high = _activation(writer, target, kind)
    values = f"{writer.size(source)}, {zero_in}, {multiplier}, {shift}, {zero_out}, {low}, {high}"
    writer.calls.append(f"ep_rescale({writer.place[source]}, {values}, {writer.place[target]});")


def _pad(writer: Writer, op: Any, name: str) -> None:
    del name
    source, target = int(op.inputs[0]), int(op.outputs[0])
    _, height, width, channels = _map(writer, source)
    amounts = constant(writer.model, writer.tensor(int(op.inputs[1])))
    if amounts is None or amounts.shape != (_RANK, 2) or amounts[0].any():
        raise ConvertError("a PAD whose amounts are not constant", code="not-plain-c")
    value = writer.scale(target)[1]
    if len(op.inputs) > 2:  # noqa: PLR2004 - PADV2 brings its value
        value = int(constant(writer.model, writer.tensor(int(op.inputs[2]))).ravel()[0])
    sides = ", ".join(str(int(one)) for pair in amounts[1:] for one in pair)
    size = f"{height}, {width}, {channels}"
    writer.calls.append(f"ep_pad({writer.place[source]}, {size}, {sides}, {value}, {writer.place[target]});")


def _softmax(writer: Writer, op: Any, name: str) -> None:
    del name
    source, target = int(op.inputs[0]), int(op.outputs[0])
    multiplier, shift, least = softmax_scale(float(op.builtinOptions.beta), writer.scale(source)[0])
    depth = writer.shape(source)[-1]
    values = f"{writer.size(source) // depth}, {depth}, {multiplier}, {shift}, {least}"
    writer.calls.append(f"ep_softmax({writer.place[source]}, {values}, {writer.place[target]});")


_RULES: dict[str, Callable[[Writer, Any, str], None]] = {
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _dense,
    "MAX_POOL_2D": _pool,
    "AVERAGE_POOL_2D": _pool,
    "ADD": _add,
    "MEAN": _mean,
    "RESHAPE": _reshape,
    "SQUEEZE": _reshape,
    "EXPAND_DIMS": _reshape,
    "RELU": _rescale,
    "RELU6": _rescale,
    "QUANTIZE": _rescale,
    "PAD": _pad,
    "PADV2": _pad,
    "SOFTMAX": _softmax,
}
