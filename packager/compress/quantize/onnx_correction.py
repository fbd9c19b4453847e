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
    """Changes the biases of convolutions and Gemms that will be quantised; how many (0 in a net without such).

    The layer itself is run on the calibration data with the rounding error for its weights: the mean of what comes out is
    the shift. (The product of mean input and summed error would be wrong where padding covers much of a small map.)
    """
    import numpy as np
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = [
        node
        for node in model.graph.node
        if node.op_type in ("Conv", "Gemm") and node.input[1] in tensors and node.name not in recipe.exclude
    ]
    if not nodes:
        return 0
    errors = {}
    for node in nodes:
        weight = numpy_helper.to_array(tensors[node.input[1]]).astype(np.float32)
        errors[node.name] = rounded(weight, recipe, axis=_axis(node)) - weight
    done = 0
    for node, shift in zip(nodes, _shifts(model, nodes, errors, calibration), strict=True):
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


def rounded(weight: Array, recipe: Recipe, axis: int) -> Array:
    """The weights as the quantiser rounds them, with a scale for each place on the axis where the recipe says so.

    With a scale for each channel, unsigned weights have the zero point 128 in every one: onnxruntime's integer kernels take
    one for all, and so its quantiser makes them symmetric, whatever it is told.
    """
    import numpy as np

    rest = tuple(place for place in range(weight.ndim) if place != axis) if recipe.per_channel else None
    widest = np.maximum(np.abs(weight).max(axis=rest, keepdims=True), 1e-12)
    if recipe.weight_type == "int8":
        scale = widest / 127
        signed: Array = np.clip(np.round(weight / scale), -127, 127) * scale
        return signed
    if recipe.per_channel:
        scale = 2 * widest / 255
        even: Array = np.clip(np.round(weight / scale), -128, 127) * scale
        return even
    low = np.minimum(weight.min(), 0)
    high = np.maximum(weight.max(), 0)
    scale = np.maximum(high - low, 1e-12) / 255
    zero = np.round(-low / scale)
    unsigned: Array = (np.clip(np.round(weight / scale) + zero, 0, 255) - zero) * scale
    return unsigned


def _shifts(model: Any, nodes: list[Any], errors: dict[str, Array], calibration: CalibrationData) -> list[Array]:
    """The mean output of each node, by channel (axis 1), were its weights the errors and its bias nothing."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    onnxruntime = need_onnxruntime()
    widened = type(model)()
    widened.CopyFrom(model)
    del widened.graph.output[:]
    names = []
    for place, node in enumerate(nodes):
        twin = widened.graph.node.add()
        twin.CopyFrom(node)
        names.append(f"shift_{place}")
        weight = f"error_{place}"
        widened.graph.initializer.append(numpy_helper.from_array(errors[node.name].astype(np.float32), weight))
        del twin.input[1:], twin.output[:]
        twin.input.append(weight)
        twin.output.append(names[-1])
        twin.name = f"{node.name}_shift"
        widened.graph.output.append(onnx.helper.make_tensor_value_info(names[-1], onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(widened.SerializeToString(), options, providers=["CPUExecutionProvider"])
    sums: list[Any] = [0] * len(nodes)
    count = 0
    for feed in calibration.feeds(_MOST_SAMPLES):
        for place, array in enumerate(session.run(names, feed)):
            axes = tuple(axis for axis in range(array.ndim) if axis != 1)
            sums[place] = sums[place] + array.mean(axis=axes, dtype=np.float64)
        count += 1
    return [total / count for total in sums]
