"""Smoothed activations (SmoothQuant; Xiao et al. 2022, arXiv:2211.10438): wide input channels of a product are taken over by
its weights, which have a scale for each output and bear them.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from packager.onnx_model import need_onnxruntime

if TYPE_CHECKING:
    import numpy as np

    from packager.calibration import CalibrationData

    Array = np.ndarray[Any, Any]

_MOST_SAMPLES = 32
_STRENGTH = 0.5  # of the range that goes into the weights: the paper's, for most networks
_UNEVEN = 4.0  # the widest channel over the usual one: below, a multiplication more buys nothing
_LEAST = 1e-5


def smooth(model: Any, calibration: CalibrationData) -> int:
    """Divides the channels of activations by what their products' weights are multiplied with; before how many products
    (0 in a net where all channels are about as wide). The function of the graph stays the same.

    An activation is what MatMuls and Gemms with constant weights read; its last axis are the channels.
    """
    groups = _groups(model)
    wide = _ranges(model, list(groups), calibration)
    done = 0
    for name, nodes in groups.items():
        widths = wide.get(name)
        if widths is None or not _uneven(widths):
            continue
        _scale(model, name, nodes, widths)
        done += len(nodes)
    return done


def _uneven(widths: Array) -> bool:
    import numpy as np

    return bool(widths.max() > _UNEVEN * max(float(np.median(widths)), _LEAST))


def _groups(model: Any) -> dict[str, list[Any]]:
    """The activations that products read, each with its products."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    found: dict[str, list[Any]] = {}
    for node in model.graph.node:
        weight = tensors.get(node.input[1]) if node.op_type in ("MatMul", "Gemm") else None
        turned = any(one.name == "transA" and one.i for one in node.attribute)
        if weight is not None and len(weight.dims) == 2 and not turned and node.input[0] not in tensors:  # noqa: PLR2004
            found.setdefault(node.input[0], []).append(node)
    return found


def _inner(node: Any) -> int:
    """The axis of the weights that meets the activation's channels."""
    return 1 if any(one.name == "transB" and one.i for one in node.attribute) else 0


def _ranges(model: Any, names: list[str], calibration: CalibrationData) -> dict[str, Array]:
    """The greatest absolute value of each channel of these tensors, over some of the samples."""
    import numpy as np
    import onnx

    if not names:
        return {}
    onnxruntime = need_onnxruntime()
    widened = type(model)()
    widened.CopyFrom(model)
    given = {value.name for value in widened.graph.input}
    known = {value.name for value in widened.graph.output} | given
    made = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names if name not in known
    ]
    widened.graph.output.extend(made)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(widened.SerializeToString(), options, providers=["CPUExecutionProvider"])
    inner = [name for name in names if name not in given]
    found: dict[str, Array] = {}
    for feed in calibration.feeds(_MOST_SAMPLES):
        arrays = dict(zip(inner, session.run(inner, feed), strict=True)) if inner else {}
        for name in names:
            array = np.abs(arrays[name] if name in arrays else feed[name])
            widths = array.reshape(-1, array.shape[-1]).max(axis=0)
            found[name] = np.maximum(found[name], widths) if name in found else widths
    return found


def _scale(model: Any, name: str, nodes: list[Any], widths: Array) -> None:
    """A multiplication before the products, and weights that undo it."""
    import numpy as np
    from onnx import helper, numpy_helper

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    uses = Counter(one for node in model.graph.node for one in node.input)
    weights = [np.moveaxis(numpy_helper.to_array(tensors[node.input[1]]), _inner(node), 0) for node in nodes]
    taken = np.max([np.abs(one).max(axis=1) for one in weights], axis=0)
    scale = np.maximum(widths, _LEAST) ** _STRENGTH / np.maximum(taken, _LEAST) ** (1 - _STRENGTH)
    # A channel that is never seen, or that no weight reads, stays as it is.
    scale = np.where((widths > _LEAST) & (taken > _LEAST), scale, 1.0)
    scale /= np.exp(np.log(scale).mean())
    made = f"{name}_smoothed"
    model.graph.initializer.append(numpy_helper.from_array((1 / scale).astype(np.float32), f"{made}_factor"))
    place = next(index for index, node in enumerate(model.graph.node) if node.name == nodes[0].name)
    model.graph.node.insert(place, helper.make_node("Mul", [name, f"{made}_factor"], [made], name=made))
    for node, weight in zip(nodes, weights, strict=True):
        array = np.moveaxis(weight * scale[:, None], 0, _inner(node)).astype(np.float32)
        tensor = tensors[node.input[1]]
        if uses[node.input[1]] > 1:  # others read the weights as they were
            node.input[1] = f"{node.name}_smoothed_weight"
            model.graph.initializer.append(numpy_helper.from_array(array, node.input[1]))
        else:
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        node.input[0] = made
