"""In which order a converter left the axes of an output, where its shape does not tell; and the way back to the original's."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packager.tflite_model import need, operator_code, parse_model, schema, to_bytes

if TYPE_CHECKING:
    from agent.contract.manifest import TensorSpec

IMAGE_RANK = 4
CHANNELS_LAST = (0, 2, 3, 1)
_FIRST = (0, 3, 1, 2)
_MOST_AXES = 6


def is_turned(before: Sequence[int | str], after: Sequence[int | str]) -> bool | None:
    """Whether a map went from channels first to channels last; None where its shape is the same either way."""
    if len(before) != IMAGE_RANK or len(after) != IMAGE_RANK:
        return False
    turned = _agree([before[axis] for axis in CHANNELS_LAST], after)
    return None if turned and _agree(before, after) else turned


def _agree(old: Sequence[int | str], new: Sequence[int | str]) -> bool:
    return all(isinstance(a, str) or a == b for a, b in zip(old, new, strict=True))


def orders(before: Sequence[int | str], after: Sequence[int | str]) -> list[tuple[int, ...]]:
    """The orders of the axes in which `before` may have become `after`, by their sizes: as they were and with the channels
    last, else any others; none where the sizes are others.
    """
    if len(before) != len(after):
        return []
    same = tuple(range(len(after)))
    last = (*same[:1], *same[2:], *same[1:2])
    likely = [order for order in dict.fromkeys((same, last)) if _agree([before[axis] for axis in order], after)]
    if same in likely and sum(size != 1 for size in after) <= 1:
        return [same]  # to move axes of 1 moves nothing
    others = itertools.permutations(same) if not likely and len(same) <= _MOST_AXES else ()
    return likely or [order for order in others if _agree([before[axis] for axis in order], after)]


def orders_by_values(
    source: Path, model: Any, inputs: Sequence[TensorSpec], doubtful: Mapping[int, Sequence[tuple[int, ...]]]
) -> dict[int, tuple[int, ...]]:
    """Of the orders of each output in `doubtful` the one in which its values, on one random input, are the ONNX model's.

    `inputs` are the converted model's, in the order of the ONNX model's; what has no real numbers is fed with zeros.
    """
    import numpy as np
    import onnxruntime

    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(source), quiet, providers=["CPUExecutionProvider"])
    interpreter = need("ai_edge_litert.interpreter").Interpreter(model_content=to_bytes(model))
    interpreter.allocate_tensors()
    random = np.random.default_rng(0)
    feed = {}
    for given, spec, detail in zip(session.get_inputs(), inputs, interpreter.get_input_details(), strict=True):
        real = np.dtype(detail["dtype"]).kind == "f"
        value = random.standard_normal(detail["shape"]) if real else np.zeros(detail["shape"])
        value = value.astype(detail["dtype"])
        interpreter.set_tensor(detail["index"], value)
        feed[given.name] = np.transpose(value, _FIRST) if spec.layout == "nhwc" else value
    interpreter.invoke()
    truth = session.run(None, feed)
    found = [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]
    return {
        place: min(choice, key=lambda order: _apart(found[place], np.transpose(truth[place], order)))
        for place, choice in doubtful.items()
    }


def _apart(left: Any, right: Any) -> float:
    return float(abs(left.astype("float64") - right.astype("float64")).sum())


def reordered(model: Any, orders: Mapping[int, Sequence[int]]) -> Any:
    """The model with a TRANSPOSE to this order of the axes behind the output at each place; its signatures are gone."""
    import numpy as np

    fb = schema()
    graph = model.subgraphs[0]
    for place, order in orders.items():
        source = int(graph.outputs[place])
        held = fb.BufferT()
        held.data = np.frombuffer(np.array(order, np.int32).tobytes(), np.uint8)
        model.buffers.append(held)
        axes, made = fb.TensorT(), fb.TensorT()
        axes.name, axes.shape, axes.type = f"order_{place}".encode(), [len(order)], fb.TensorType.INT32
        axes.buffer = len(model.buffers) - 1
        made.name, made.type, made.buffer = f"reordered_{place}".encode(), graph.tensors[source].type, 0
        made.shape = [int(graph.tensors[source].shape[axis]) for axis in order]
        graph.tensors += [axes, made]
        op = fb.OperatorT()
        op.opcodeIndex, op.inputs = operator_code(model, "TRANSPOSE"), [source, len(graph.tensors) - 2]
        op.outputs, op.builtinOptions = [len(graph.tensors) - 1], fb.TransposeOptionsT()
        op.builtinOptionsType = fb.BuiltinOptions.TransposeOptions
        graph.operators.append(op)
        graph.outputs = [op.outputs[0] if at == place else int(index) for at, index in enumerate(graph.outputs)]
    model.signatureDefs = None  # they name the old outputs; `rename` writes them anew
    return parse_model(to_bytes(model))


def back(order: Sequence[int]) -> tuple[int, ...]:
    """The order that undoes another."""
    return tuple(sorted(range(len(order)), key=lambda axis: order[axis]))
