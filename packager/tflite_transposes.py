"""TRANSPOSEs that only lead into another layout and out of it again, taken out of a TFLite graph.

A converter that does not know an operator's layout turns the map to channels first before it and back after it. What lies
between works element by element, or along axes that can be named anew, so that the same values come out without turning: a
copy of the whole map saved each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from packager.tflite_model import compact, constant, operator_name, schema

_UNARY = """
    ABS CEIL COS ELU EXP FLOOR GELU HARD_SWISH LEAKY_RELU LOG LOGISTIC NEG RELU RELU6 RELU_0_TO_1 RELU_N1_TO_1 ROUND RSQRT
    SIN SQRT SQUARE TANH
"""
_BINARY = "ADD DIV MAXIMUM MINIMUM MUL SQUARED_DIFFERENCE SUB"
_ELEMENTWISE = frozenset((_UNARY + _BINARY).split())


def fold_transposes(model: Any) -> int:
    """Takes out every closed group of TRANSPOSEs, in place; how many. The values of all that stays are the same."""
    removed = 0
    for graph in model.subgraphs:
        found = True
        while found:
            found = False
            for op in graph.operators:
                region = _Region(model, graph, op) if operator_name(model, op) == "TRANSPOSE" else None
                if region is not None and region.closed():
                    removed += region.apply()
                    found = True
                    break
    if removed:
        compact(model)
    return removed


class _Region:
    """What lies between the TRANSPOSEs by `order` and those that undo it; its tensors are to lie as before the first."""

    def __init__(self, model: Any, graph: Any, first: Any) -> None:
        self._model, self._graph, self._first = model, graph, first
        self._order = self._order_of(first) or ()
        self._back = tuple(sorted(range(len(self._order)), key=lambda axis: self._order[axis]))
        self._makers = {int(index): op for op in graph.operators for index in op.outputs}
        self._ends = {int(index) for side in (graph.inputs, graph.outputs) for index in side}
        self._tensors: set[int] = set()
        self._seen: set[int] = set()
        # By what is to be done: gone, constants to turn, axes to name anew, shapes to write anew.
        self._gone: list[Any] = []
        self._operands: list[tuple[Any, int]] = []
        self._reducing: list[Any] = []
        self._joining: list[Any] = []
        self._shaping: list[Any] = []

    def closed(self) -> bool:
        """Whether everything that is reached can do without the turn."""
        if not self._order or self._order == tuple(range(len(self._order))):
            return False
        waiting = [int(self._first.outputs[0])]
        while waiting:
            tensor = waiting.pop()
            if tensor in self._tensors:
                continue
            self._tensors.add(tensor)
            more = self._around(tensor)
            if more is None:
                return False
            waiting += more
        return True

    def _around(self, tensor: int) -> list[int] | None:
        """The tensors that must come along with this one; None where it cannot change its layout."""
        maker = self._makers.get(tensor)
        if tensor in self._ends or maker is None or len(self._shape(tensor)) != len(self._order):
            return None
        more = self._before(tensor, maker)
        for user in self._graph.operators:
            if more is not None and tensor in [int(index) for index in user.inputs]:
                after = self._after(tensor, user)
                more = None if after is None else more + after
        return more

    def _before(self, tensor: int, maker: Any) -> list[int] | None:
        if self._order_of(maker) == self._order:
            self._take(self._gone, maker)
            return []
        if operator_name(self._model, maker) == "RESHAPE" and self._is_flat(tensor):
            self._take(self._shaping, maker)
            return []
        return self._through(maker)

    def _after(self, tensor: int, user: Any) -> list[int] | None:
        if self._order_of(user) == self._back and int(user.outputs[0]) not in self._ends:
            self._take(self._gone, user)
            return []
        if operator_name(self._model, user) == "RESHAPE" and self._is_flat(tensor):
            return []  # one axis only: the same values in the same order
        return self._through(user)

    def _through(self, op: Any) -> list[int] | None:
        """All that an operator between takes and gives; None for one that depends on the layout."""
        name = operator_name(self._model, op)
        outputs = [int(index) for index in op.outputs]
        if name == "MEAN":
            if not self._may_reduce(op):
                return None
            self._take(self._reducing, op)
            return [int(op.inputs[0]), *(outputs if op.builtinOptions.keepDims else [])]
        if name == "CONCATENATION":
            self._take(self._joining, op)
            return [int(index) for index in op.inputs] + outputs
        if name not in _ELEMENTWISE:
            return None
        fixed = [place for place, index in enumerate(op.inputs) if self._value(index) is not None]
        if id(op) not in self._seen:
            self._seen.add(id(op))
            self._operands += [(op, place) for place in fixed]
        return [int(index) for place, index in enumerate(op.inputs) if place not in fixed] + outputs

    def _may_reduce(self, op: Any) -> bool:
        """The axes must be known; where they are not kept, what stays must stay in its order."""
        if self._value(op.inputs[1]) is None:
            return False
        axes = self._axes(op)
        left = [self._order[axis] for axis in range(len(self._order)) if axis not in axes]
        return bool(op.builtinOptions.keepDims) or left == sorted(left)

    def _axes(self, op: Any) -> list[int]:
        return [int(axis) % len(self._order) for axis in self._value(op.inputs[1]).reshape(-1)]

    def _take(self, where: list[Any], op: Any) -> None:
        if id(op) not in self._seen:
            self._seen.add(id(op))
            where.append(op)

    def _order_of(self, op: Any) -> tuple[int, ...] | None:
        if operator_name(self._model, op) != "TRANSPOSE":
            return None
        order = constant(self._model, self._graph.tensors[op.inputs[1]])
        return None if order is None else tuple(int(axis) for axis in order)

    def _shape(self, tensor: int) -> list[int]:
        shape = self._graph.tensors[tensor].shape
        return [] if shape is None else [int(size) for size in shape]

    def _value(self, index: int) -> Any:
        return constant(self._model, self._graph.tensors[int(index)])

    def _is_flat(self, tensor: int) -> bool:
        return sum(size != 1 for size in self._shape(tensor)) <= 1

    def apply(self) -> int:
        """Lays the tensors as they were before the first TRANSPOSE; the number of TRANSPOSEs that go."""
        import numpy as np

        for op, place in self._operands:
            self._turn_operand(op, place)
        for op in self._reducing:
            self._new_constant(op, 1, np.array([self._order[axis] for axis in self._axes(op)], np.int32))
        for op in self._joining:
            op.builtinOptions.axis = self._order[op.builtinOptions.axis % len(self._order)]
        for tensor in self._tensors:
            self._turn_shape(tensor)
        for op in self._shaping:
            self._write_shape(op)
        instead = {int(op.outputs[0]): int(op.inputs[0]) for op in self._gone}
        gone = {id(op) for op in self._gone}
        self._graph.operators = [op for op in self._graph.operators if id(op) not in gone]
        for op in self._graph.operators:
            op.inputs = [_last(instead, int(index)) for index in op.inputs]
        return len(self._gone)

    def _turn_shape(self, tensor: int) -> None:
        found = self._graph.tensors[tensor]
        found.shape = self._turned(self._shape(tensor))
        if found.shapeSignature is not None:
            found.shapeSignature = self._turned([int(size) for size in found.shapeSignature])

    def _turned(self, shape: Sequence[int]) -> list[int]:
        return [shape[axis] for axis in self._back]

    def _turn_operand(self, op: Any, place: int) -> None:
        value = self._value(op.inputs[place])
        if value.size > 1:
            whole = value.reshape([1] * (len(self._order) - value.ndim) + list(value.shape))
            self._new_constant(op, place, whole.transpose(self._back))

    def _write_shape(self, op: Any) -> None:
        import numpy as np

        shape = self._shape(int(op.outputs[0]))
        if op.builtinOptions is not None:
            op.builtinOptions.newShape = shape
        if len(op.inputs) > 1:
            self._new_constant(op, 1, np.array(shape, np.int32))

    def _new_constant(self, op: Any, place: int, value: Any) -> None:
        """The operand becomes a constant of its own: others may use the old one."""
        import numpy as np

        fb = schema()
        old = self._graph.tensors[op.inputs[place]]
        buffer, tensor = fb.BufferT(), fb.TensorT()
        buffer.data = np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)
        self._model.buffers.append(buffer)
        tensor.name, tensor.type, tensor.buffer = old.name, old.type, len(self._model.buffers) - 1
        tensor.shape = list(value.shape)
        self._graph.tensors.append(tensor)
        inputs = [int(index) for index in op.inputs]
        inputs[place] = len(self._graph.tensors) - 1
        op.inputs = inputs


def _last(instead: dict[int, int], index: int) -> int:
    while index in instead:
        index = instead[index]
    return index
