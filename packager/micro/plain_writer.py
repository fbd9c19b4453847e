"""What is being written when a model becomes plain C: constants, calls, and each tensor's place in one buffer."""

from __future__ import annotations

import dataclasses
from typing import Any

from agent.contract.errors import ConvertError
from packager.tflite_model import constant, operator_name, scale_of, type_name

_PER_LINE = 24


@dataclasses.dataclass
class Writer:
    """What is being written: `data` are constants, `calls` the body of the inference."""

    model: Any
    data: list[str] = dataclasses.field(default_factory=list)
    calls: list[str] = dataclasses.field(default_factory=list)
    place: dict[int, str] = dataclasses.field(default_factory=dict)
    weights_bytes: int = 0

    @property
    def graph(self) -> Any:
        """The only graph."""
        return self.model.subgraphs[0]

    def tensor(self, index: int) -> Any:
        """The tensor at this place."""
        return self.graph.tensors[index]

    def shape(self, index: int) -> list[int]:
        """Its shape."""
        shape = self.tensor(index).shape
        return [] if shape is None else [int(size) for size in shape]

    def size(self, index: int) -> int:
        """The number of its values."""
        total = 1
        for one in self.shape(index):
            total *= one
        return total

    def scale(self, index: int) -> tuple[float, int]:
        """Scale and zero point of an int8 tensor. Raises ConvertError for any other."""
        found = scale_of(self.tensor(index))
        if found is None or type_name(self.tensor(index)) != "INT8":
            raise ConvertError(
                f"a tensor of the type {type_name(self.tensor(index))}", expected="int8", code="not-plain-c"
            )
        return found

    def array(self, name: str, kind: str, values: Any) -> str:
        """Writes a constant array; its name."""
        numbers = [str(int(value)) for value in values.ravel()]
        lines = [", ".join(numbers[i : i + _PER_LINE]) for i in range(0, len(numbers), _PER_LINE)]
        self.data.append(f"static const {kind} {name}[{len(numbers)}] = {{\n    " + ",\n    ".join(lines) + ",\n};")
        self.weights_bytes += values.size * {"int8_t": 1, "int32_t": 4}[kind]
        return name


def plan_memory(writer: Writer) -> int:
    """Gives every computed tensor a place in one buffer, tensors that never live together sharing it; its bytes.

    Largest first, each at the lowest place that is free during its life. A RESHAPE's output is its input's place.
    """
    graph = writer.graph
    alias: dict[int, int] = {}
    for op in graph.operators:
        if operator_name(writer.model, op) in ("RESHAPE", "SQUEEZE", "EXPAND_DIMS"):
            alias[int(op.outputs[0])] = alias.get(int(op.inputs[0]), int(op.inputs[0]))
    life: dict[int, list[int]] = {}
    start, end = int(graph.inputs[0]), int(graph.outputs[0])
    life[start] = [0, 0]
    for number, op in enumerate(graph.operators):
        for index in [*op.inputs, *op.outputs]:
            root = alias.get(int(index), int(index))
            if index >= 0 and constant(writer.model, writer.tensor(root)) is None:
                life.setdefault(root, [number, number])[1] = number
    life[alias.get(end, end)][1] = len(graph.operators)
    placed: list[tuple[int, int, int]] = []
    for root in sorted(life, key=lambda one: (-writer.size(one), one)):
        size, offset = (writer.size(root) + 3) // 4 * 4, 0
        for other, low, high in sorted(placed, key=lambda entry: entry[1]):
            together = life[other][0] <= life[root][1] and life[root][0] <= life[other][1]
            if together and offset < high and low < offset + size:
                offset = high
        placed.append((root, offset, offset + size))
        writer.place[root] = f"arena + {offset}"
    for index, root in alias.items():
        writer.place[index] = writer.place[root]
    return max(high for _, _, high in placed)
