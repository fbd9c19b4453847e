"""Bias correction: what rounding the weights adds to a channel's mean is taken from its bias (Nagel et al. 2019, 4.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from packager.onnx_model import need_onnxruntime

if TYPE_CHECKING:
    import numpy as np

    from packager.calibration import CalibrationData
    from packager.recipe import Recipe

    Array = np.ndarray[Any, Any]

_MOST_SAMPLES = 32
_BIAS = 2  # its place among the inputs


def correct_biases(model: Any, calibration: CalibrationData, recipe: Recipe) -> int:
    """Changes the biases of convolutions and Gemms that will be quantised; how many.

    The mean of a channel's inputs over the calibration data, times the error of its rounded weights, is the shift.
    """
    import numpy as np
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = [
        node
        for node in model.graph.node
        if node.op_type in ("Conv", "Gemm") and node.input[1] in tensors and node.name not in recipe.exclude
    ]
    means = _means(model, {node.input[0]: node.op_type for node in nodes}, calibration)
    done = 0
    for node in nodes:
        weight = numpy_helper.to_array(tensors[node.input[1]]).astype(np.float32)
        error = _rounded(weight, recipe, axis=_axis(node)) - weight
        shift = _shift(node, error, means[node.input[0]])
        if shift is None:
            continue
        bias = tensors.get(node.input[_BIAS]) if len(node.input) > _BIAS and node.input[_BIAS] else None
        if bias is None:
            if len(node.input) > _BIAS and node.input[_BIAS]:
                continue  # a bias that is computed
            name = f"{node.name}_corrected_bias"
            model.graph.initializer.append(numpy_helper.from_array(-shift.astype(np.float32), name))
            del node.input[_BIAS:]
            node.input.append(name)
        else:
            corrected = numpy_helper.to_array(bias) - shift.reshape(bias.dims)
            bias.CopyFrom(numpy_helper.from_array(corrected.astype(np.float32), bias.name))
        done += 1
    return done


def _axis(node: Any) -> int:
    """The axis of the weight's output channels."""
    turned = next((one.i for one in node.attribute if one.name == "transB"), 0)
    return 0 if node.op_type == "Conv" or turned else 1


def _rounded(weight: Array, recipe: Recipe, axis: int) -> Array:
    import numpy as np

    rest = tuple(place for place in range(weight.ndim) if place != axis) if recipe.per_channel else None
    if recipe.weight_type == "int8":
        scale = np.maximum(np.abs(weight).max(axis=rest, keepdims=True), 1e-12) / 127
        signed: Array = np.clip(np.round(weight / scale), -127, 127) * scale
        return signed
    low = np.minimum(weight.min(axis=rest, keepdims=True), 0)
    high = np.maximum(weight.max(axis=rest, keepdims=True), 0)
    scale = np.maximum(high - low, 1e-12) / 255
    zero = np.round(-low / scale)
    unsigned: Array = (np.clip(np.round(weight / scale) + zero, 0, 255) - zero) * scale
    return unsigned


def _shift(node: Any, error: Array, mean: Array) -> Array | None:
    import numpy as np

    if node.op_type == "Gemm":
        turned = next((one.i for one in node.attribute if one.name == "transB"), 0)
        matrix = error if turned else error.T
        product: Array = matrix @ mean
        return product if len(mean) == matrix.shape[1] else None
    groups = next((one.i for one in node.attribute if one.name == "group"), 1)
    sums = error.reshape(*error.shape[:2], -1).sum(axis=2)  # output x input channels of its group
    if len(mean) != groups * sums.shape[1]:
        return None
    each = len(sums) // groups
    inputs = mean.reshape(groups, -1).repeat(each, axis=0)
    result: Array = np.einsum("oi,oi->o", sums, inputs)
    return result


def _means(model: Any, wanted: dict[str, str], calibration: CalibrationData) -> dict[str, Array]:
    """The mean of each channel (axis 1; of a Gemm's input the last axis)."""
    import numpy as np
    import onnx

    onnxruntime = need_onnxruntime()
    widened = type(model)()
    widened.CopyFrom(model)
    given = {value.name for value in (*model.graph.output, *model.graph.input)}
    widened.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in wanted if name not in given
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(widened.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_outputs() if entry.name in wanted]
    sums: dict[str, Array] = {}
    count = 0
    for feed in calibration.feeds(_MOST_SAMPLES):
        values = dict(zip(names, session.run(names, feed), strict=True))
        values |= {name: array for name, array in feed.items() if name in wanted}
        for name, array in values.items():
            axes = tuple(place for place in range(array.ndim) if place != 1)
            sums[name] = sums.get(name, 0) + np.asarray(array.mean(axis=axes, dtype=np.float64))
        count += 1
    return {name: total / count for name, total in sums.items()}
