"""Float operators between DEQUANTIZE and QUANTIZE become operators on the integers themselves, with the ranges that the graph
already holds: what quantisation-aware training learned reaches TFLite's INT8 kernels without another calibration.
"""

from __future__ import annotations

import copy
import math
from typing import Any

from packager.tflite_model import compact, constant, operator_name, schema, text, type_name

# Kernels that take any scales and zero points (TFLite's 8-bit specification), with the version that has INT8.
_COMPUTE = {"ADD": 2, "SUB": 3, "MUL": 2, "MEAN": 2, "BATCH_MATMUL": 2, "LEAKY_RELU": 2, "HARD_SWISH": 1, "SUM": 2}
# Those with constant weights: version, the axis of the weights that carries the scales, and where the data stand.
_WEIGHTED = {
    "CONV_2D": (3, 0, 0),
    "DEPTHWISE_CONV_2D": (3, 3, 0),
    "FULLY_CONNECTED": (4, 0, 0),
    "TRANSPOSE_CONV": (3, 0, 2),
}
# Their output has one scale and zero point that the kernel insists on.
_FIXED = {"LOGISTIC": (2, 1 / 256, -128), "SOFTMAX": (2, 1 / 256, -128), "TANH": (2, 1 / 128, 0)}
_VERSIONS = {**_COMPUTE, **{kind: one[0] for kind, one in _FIXED.items()}}
# The same function on integers as on the numbers they stand for, the scale unchanged.
_THROUGH = {
    "TRANSPOSE": 2,
    "RESHAPE": 1,
    "SQUEEZE": 1,
    "EXPAND_DIMS": 1,
    "PAD": 2,
    "MAX_POOL_2D": 2,
    "AVERAGE_POOL_2D": 2,
    "RELU": 2,
    "RELU6": 2,
    "MINIMUM": 2,
    "MAXIMUM": 2,
    "SLICE": 2,
    "STRIDED_SLICE": 2,
    "RESIZE_NEAREST_NEIGHBOR": 2,
}
_CLAMPS = ("MINIMUM", "MAXIMUM")
_FLIP = "REVERSE_V2"  # of a transposed convolution's weights: constants only
_MOVES = ("TRANSPOSE", "RESHAPE", "SQUEEZE", "EXPAND_DIMS")
_WEIGHT = 1


def integers_from_qdq(model: Any) -> int:
    """Rewrites the main graph in place; the number of operators that compute on integers afterwards and did not before.

    What has no exact integer form stays in float between its DEQUANTIZE and QUANTIZE.
    """
    graph = _Graph(model)
    graph.fold_constants()
    changed = 0
    while True:
        again = sum(graph.try_one(op) for op in list(graph.ops))
        changed += again
        if not again:
            break
    graph.cancel()
    compact(model)
    return changed


def integer_ends(model: Any) -> None:
    """Inputs that are quantised first thing, and outputs that are dequantised last, are integers themselves."""
    graph = model.subgraphs[0]
    for op in list(graph.operators):
        kind = operator_name(model, op)
        source, out = int(op.inputs[0]), int(op.outputs[0])
        if type_name(graph.tensors[source]) not in ("FLOAT32", "INT8"):
            continue
        if kind == "QUANTIZE" and source in list(graph.inputs):
            users = [other for other in graph.operators if source in list(other.inputs)]
            if len(users) == 1 and source not in list(graph.outputs):
                graph.inputs = [out if int(index) == source else int(index) for index in graph.inputs]
                graph.operators.remove(op)
        elif kind == "DEQUANTIZE" and out in list(graph.outputs) and source not in list(graph.inputs):
            users = [other for other in graph.operators if out in list(other.inputs)]
            if not users:
                graph.outputs = [source if int(index) == out else int(index) for index in graph.outputs]
                graph.operators.remove(op)
    model.signatureDefs = []  # they name the tensors that were; the caller names the new ones
    compact(model)


class _Graph:
    """The main graph with the questions that the rewriting asks."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.graph = model.subgraphs[0]
        self.ops: list[Any] = self.graph.operators

    def kind(self, op: Any) -> str:
        return operator_name(self.model, op)

    def maker(self, tensor: int) -> Any:
        return next((op for op in self.ops if tensor in [int(index) for index in op.outputs]), None)

    def users(self, tensor: int) -> list[Any]:
        return [op for op in self.ops if tensor in [int(index) for index in op.inputs]]

    def tensor(self, index: int) -> Any:
        return self.graph.tensors[index]

    def behind(self, tensor: int) -> int | None:
        """The INT8 tensor that a DEQUANTIZE makes this one of."""
        op = self.maker(tensor)
        if op is None or self.kind(op) != "DEQUANTIZE" or type_name(self.tensor(int(op.inputs[0]))) != "INT8":
            return None
        return int(op.inputs[0])

    def ahead(self, tensor: int) -> Any:
        """The one QUANTIZE that takes this tensor; None when anything else does."""
        users = self.users(tensor)
        if len(users) != 1 or self.kind(users[0]) != "QUANTIZE" or tensor in [int(one) for one in self.graph.outputs]:
            return None
        return users[0] if type_name(self.tensor(int(users[0].outputs[0]))) == "INT8" else None

    def add_tensor(self, like: Any, quantization: Any, name: str, data: Any = None, shape: Any = None) -> int:
        """A tensor in the shape of another; `data` an array for a constant."""
        import numpy as np

        fb = schema()
        made = copy.deepcopy(like)
        made.name, made.buffer, made.quantization = name.encode(), 0, quantization
        made.type = fb.TensorType.INT32 if data is not None and data.dtype == np.int32 else fb.TensorType.INT8
        if data is not None:
            buffer = fb.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), dtype=np.uint8)
            self.model.buffers.append(buffer)
            made.buffer = len(self.model.buffers) - 1
            made.shape, made.shapeSignature = list(data.shape if shape is None else shape), None
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def raise_version(self, op: Any, version: int) -> None:
        code = self.model.operatorCodes[op.opcodeIndex]
        code.version = max(int(code.version or 1), version)

    def fold_constants(self) -> None:
        """A constant that is quantised becomes a constant of integers."""
        for op in [one for one in self.ops if self.kind(one) == "QUANTIZE"]:
            values = constant(self.model, self.tensor(int(op.inputs[0])))
            out = self.tensor(int(op.outputs[0]))
            if values is None or type_name(out) != "INT8":
                continue
            scale, zero, axis = parameters(out)
            integers = _quantised(values, scale, zero, axis)
            made = self.add_tensor(out, out.quantization, text(out.name), integers)
            for user in self.users(int(op.outputs[0])):
                user.inputs = [made if int(index) == int(op.outputs[0]) else int(index) for index in user.inputs]
            self.ops.remove(op)

    def try_one(self, op: Any) -> bool:
        """Makes one operator an integer one where that is possible; whether it did."""
        kind = self.kind(op)
        if not len(op.inputs) or type_name(self.tensor(int(op.outputs[0]))) != "FLOAT32":
            return False
        if kind in _THROUGH or kind == _FLIP:
            return self._push(op, kind) or self._pull(op, kind)
        if kind in _WEIGHTED:
            return self._weighted(op, *_WEIGHTED[kind])
        if kind == "CONCATENATION":
            return self._joined(op)
        if kind in _FIXED and not self._fixed(op, *_FIXED[kind][1:]):
            return False
        return (kind in _COMPUTE or kind in _FIXED) and self._computed(op, _VERSIONS[kind])

    def _fixed(self, op: Any, scale: float, zero: int) -> bool:
        """Whether the QUANTIZE behind the operator has the one scale that its kernel gives."""
        after = self.ahead(int(op.outputs[0]))
        if after is None:
            return False
        scales, zeros, _ = parameters(self.tensor(int(after.outputs[0])))
        return math.isclose(scales[0], scale, rel_tol=1e-4) and zeros[0] == zero

    def _computed(self, op: Any, version: int) -> bool:
        after = self.ahead(int(op.outputs[0]))
        if after is None:
            return False
        sources: list[int] = []
        for index in (int(one) for one in op.inputs):
            found: int | None = index
            if type_name(self.tensor(index)) == "FLOAT32":
                found = self.behind(index)
                if found is None:
                    found = self._scalar(index)
            if found is None:
                return False
            sources.append(found)
        self._settle(op, sources, after, version)
        return True

    def _settle(self, op: Any, sources: list[int], after: Any, version: int) -> None:
        """The operator reads `sources` and writes what the QUANTIZE after it wrote."""
        op.inputs, op.outputs = sources, [int(after.outputs[0])]
        self.ops.remove(after)
        self.raise_version(op, version)

    def _scalar(self, index: int) -> int | None:
        """A constant of one number as the integer 1 and that number as scale: exact."""
        import numpy as np

        values = constant(self.model, self.tensor(index))
        if values is None or values.size != 1 or not float(values.ravel()[0]) > 0:
            return None
        number = float(values.ravel()[0])
        made = _quantization([number], [0])
        return self.add_tensor(self.tensor(index), made, f"one_{index}", np.ones(values.shape, dtype=np.int8))

    def _weighted(self, op: Any, version: int, axis: int, place: int) -> bool:
        after = self.ahead(int(op.outputs[0]))
        sources = [int(index) for index in op.inputs]
        data, weight = self.behind(sources[place]), self.behind(sources[_WEIGHT])
        if after is None or data is None or weight is None or constant(self.model, self.tensor(weight)) is None:
            return False
        scales, zeros, carried = parameters(self.tensor(weight))
        if (len(scales) > 1 and carried != axis) or any(zeros):
            return False
        sources[place], sources[_WEIGHT] = data, weight
        last = max(place, _WEIGHT) + 1
        if len(sources) > last and sources[last] >= 0:
            bias = self._bias(sources[last], parameters(self.tensor(data))[0][0], scales)
            if bias is None:
                return False
            sources[last] = bias
        self._settle(op, sources, after, version)
        return True

    def _bias(self, index: int, data_scale: float, scales: Any) -> int | None:
        """INT32 in steps of the product of both scales, as TFLite's specification has it."""
        import numpy as np

        values = constant(self.model, self.tensor(index))
        if values is None or values.dtype != np.float32:
            return None
        steps = np.float64(data_scale) * np.asarray(scales, dtype=np.float64)
        limits = np.iinfo(np.int32)
        whole = np.clip(np.round(values.astype("float64").ravel() / steps), limits.min, limits.max).astype(np.int32)
        like = self.tensor(index)
        return self.add_tensor(like, _quantization(steps.tolist(), [0] * len(steps)), f"{text(like.name)}_int32", whole)

    def _joined(self, op: Any) -> bool:
        """CONCATENATION takes one scale for all."""
        after = self.ahead(int(op.outputs[0]))
        if after is None:
            return False
        sources = [self.behind(int(index)) for index in op.inputs]
        wanted = _key(self.tensor(int(after.outputs[0])))
        found = [one for one in sources if one is not None]
        if len(found) < len(sources) or any(_key(self.tensor(one)) != wanted for one in found):
            return False
        self._settle(op, found, after, 2)
        return True

    def _push(self, op: Any, kind: str) -> bool:
        """DEQUANTIZE behind the operator in the place of before it."""
        source = self.behind(int(op.inputs[0]))
        if source is None:
            return False
        like = self.tensor(source)
        if constant(self.model, like) is not None:
            return kind in (*_MOVES, _FLIP) and self._move_constant(op, kind, source)
        if kind == _FLIP:
            return False
        out = int(op.outputs[0])
        before = self.maker(int(op.inputs[0]))
        inputs = [source, *(int(index) for index in op.inputs[1:])]
        if kind in _CLAMPS:
            limit = self._limit(inputs[1], like)
            if limit is None:
                return False
            inputs[1] = limit
        made = self.add_tensor(self.tensor(out), like.quantization, f"{text(self.tensor(out).name)}_int8")
        back = copy.deepcopy(before)
        back.inputs, back.outputs = [made], [out]
        op.inputs, op.outputs = inputs, [made]
        self.ops.insert(self.ops.index(op) + 1, back)
        self.raise_version(op, _THROUGH[kind])
        return True

    def _limit(self, index: int, like: Any) -> int | None:
        """The constant of a MINIMUM or MAXIMUM on the grid of the values: clamping commutes with rounding."""
        values = constant(self.model, self.tensor(index))
        if values is None or values.dtype.kind != "f":
            return None
        scale, zero, _ = parameters(like)
        integers = _quantised(values, scale, zero, 0)
        return self.add_tensor(self.tensor(index), like.quantization, f"limit_{index}", integers)

    def _move_constant(self, op: Any, kind: str, source: int) -> bool:
        """The moved constant itself, in the place of the operator that moves it."""
        import numpy as np

        like, out = self.tensor(source), int(op.outputs[0])
        values = constant(self.model, like)
        shape = [int(size) for size in self.tensor(out).shape]
        quantization = copy.deepcopy(like.quantization)
        scales, _, axis = parameters(like)
        if kind == "TRANSPOSE":
            order = [int(place) for place in constant(self.model, self.tensor(int(op.inputs[1])))]
            values, axis = np.transpose(values, order), order.index(axis)
        elif kind == _FLIP:
            flipped = [int(place) for place in constant(self.model, self.tensor(int(op.inputs[1])))]
            if len(scales) > 1 and axis in flipped:
                return False
            values = np.flip(values, tuple(flipped))
        elif len(scales) > 1:
            places = [
                place
                for place, size in enumerate(shape)
                if size == len(scales) and math.prod(shape[:place]) == math.prod(values.shape[:axis])
            ]
            if not places:
                return False
            values, axis = values.reshape(shape), places[0]
        else:
            values, axis = values.reshape(shape), 0
        quantization.quantizedDimension = axis if len(scales) > 1 else 0
        made = self.add_tensor(like, quantization, f"{text(self.tensor(out).name)}_int8", values)
        back = copy.deepcopy(self.maker(int(op.inputs[0])))
        back.inputs, back.outputs = [made], [out]
        self.ops[self.ops.index(op)] = back
        return True

    def _pull(self, op: Any, kind: str) -> bool:
        """QUANTIZE before the operator in the place of behind it, where only data move."""
        after = self.ahead(int(op.outputs[0]))
        source = int(op.inputs[0])
        if after is None or kind not in _MOVES or constant(self.model, self.tensor(source)) is not None:
            return False
        out = int(after.outputs[0])
        made = self.add_tensor(
            self.tensor(source), self.tensor(out).quantization, f"{text(self.tensor(source).name)}_int8"
        )
        first = copy.deepcopy(after)
        first.inputs, first.outputs = [source], [made]
        self.ops.insert(self.ops.index(op), first)
        op.inputs, op.outputs = [made, *(int(index) for index in op.inputs[1:])], [out]
        self.ops.remove(after)
        self.raise_version(op, _THROUGH[kind])
        return True

    def cancel(self) -> None:
        """QUANTIZE of a DEQUANTIZE: nothing where both have the same ranges, else one step from integers to integers."""
        for op in [one for one in self.ops if self.kind(one) == "QUANTIZE"]:
            source = self.behind(int(op.inputs[0]))
            if source is None:
                continue
            out = int(op.outputs[0])
            if _key(self.tensor(source)) != _key(self.tensor(out)) or out in [int(one) for one in self.graph.outputs]:
                op.inputs = [source]
                self.raise_version(op, 2)
                continue
            for user in self.users(out):
                user.inputs = [source if int(index) == out else int(index) for index in user.inputs]
            self.ops.remove(op)
        self._sweep()

    def _sweep(self) -> None:
        """Drops operators whose results nobody reads."""
        kept = {int(index) for index in self.graph.outputs}
        for op in reversed(list(self.ops)):
            if kept & {int(index) for index in op.outputs}:
                kept |= {int(index) for index in op.inputs}
            else:
                self.ops.remove(op)


def parameters(tensor: Any) -> tuple[list[float], list[int], int]:
    """Scales, zero points and the axis that carries them."""
    q = tensor.quantization
    scales = [float(one) for one in q.scale]
    zeros = [int(one) for one in q.zeroPoint] if q.zeroPoint is not None and len(q.zeroPoint) else [0] * len(scales)
    return scales, zeros, int(q.quantizedDimension or 0)


def _key(tensor: Any) -> tuple[tuple[float, ...], tuple[int, ...]]:
    scales, zeros, _ = parameters(tensor)
    return tuple(scales), tuple(zeros)


def _quantization(scales: list[float], zeros: list[int]) -> Any:
    made = schema().QuantizationParametersT()
    made.scale, made.zeroPoint, made.quantizedDimension = scales, zeros, 0
    return made


def _quantised(values: Any, scales: list[float], zeros: list[int], axis: int) -> Any:
    import numpy as np

    shape = [-1 if place == axis else 1 for place in range(values.ndim)] if len(scales) > 1 else [1] * values.ndim
    scale = np.asarray(scales, dtype=np.float64).reshape(shape)
    zero = np.asarray(zeros, dtype=np.int64).reshape(shape)
    return np.clip(np.round(values.astype("float64") / scale) + zero, -128, 127).astype(np.int8)
