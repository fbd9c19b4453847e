"""The layer table that the builder logs: what fused, what runs in which type."""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Sequence

# The builder's words for what multiplies: kernels of convolutions and matrix products, attention included.
_COMPUTE = ("convolution", "conv", "correlation", "gemm", "matmul", "mha", "deconv")
_SECTIONS = ("Inputs", "Constants", "Outputs")
_TYPE = re.compile(r"Datatype: (\w+)|Format/Datatype: (\w+)")


@dataclasses.dataclass(frozen=True)
class Layer:
    """One kernel of the engine; `nodes` are the ONNX nodes that went into it, types those of its tensors."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[str, ...]

    @property
    def computes(self) -> bool:
        """Whether it multiplies matrices or convolves."""
        return any(word in self.kind.lower() for word in _COMPUTE)

    @property
    def int8(self) -> bool:
        """Whether it takes INT8."""
        return "Int8" in self.inputs


@dataclasses.dataclass(frozen=True)
class Table:
    """All layers of an engine of `engine_bytes`."""

    layers: tuple[Layer, ...]
    engine_bytes: int

    @property
    def compute(self) -> tuple[Layer, ...]:
        """Those that multiply."""
        return tuple(layer for layer in self.layers if layer.computes)

    @property
    def int8(self) -> tuple[Layer, ...]:
        """Those that multiply in INT8."""
        return tuple(layer for layer in self.compute if layer.int8)

    @property
    def types(self) -> dict[str, int]:
        """How many layers take each type first."""
        return dict(collections.Counter(layer.inputs[0] for layer in self.layers if layer.inputs).most_common())

    def summary(self) -> str:
        """One line: layers, what was fused, types, INT8 coverage."""
        nodes = sum(len(layer.nodes) for layer in self.layers)
        types = ", ".join(f"{count} {name}" for name, count in self.types.items())
        told = f"{len(self.layers)} layers from {nodes} nodes ({types})"
        if self.compute:
            told += f"; {len(self.int8)} of {len(self.compute)} convolutions and matrix products take INT8"
        return told


def read(lines: Sequence[str], engine_bytes: int) -> Table:
    """The table in the log's lines `Name: ..., LayerType: ..., Inputs: [...], Outputs: [...]`."""
    return Table(tuple(layer for layer in map(_layer, lines) if layer is not None), engine_bytes)


def _layer(line: str) -> Layer | None:
    head = re.match(r"Name: (.*?), LayerType: ([^,]+),", line)
    if head is None:
        return None
    return Layer(
        name=head[1],
        kind=head[2],
        inputs=_types(line, "Inputs"),
        outputs=_types(line, "Outputs"),
        nodes=tuple(dict.fromkeys(re.findall(r"\[ONNX Layer: (.*?)\]", line))),
    )


def _types(line: str, section: str) -> tuple[str, ...]:
    start = line.find(f"{section}: [")
    if start < 0:
        return ()
    ends = [line.find(f", {name}: [", start) for name in _SECTIONS if name != section]
    ends += [line.find(word, start) for word in (", TacticName", ", StreamId", ", Metadata")]
    end = min((place for place in ends if place > 0), default=len(line))
    return tuple(one or other for one, other in _TYPE.findall(line[start:end]))
