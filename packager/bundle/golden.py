"""Golden vectors: a few inputs and what the *original* model makes of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agent.contract.errors import UsageError
from agent.contract.manifest import TensorSpec
from packager.calibration import CalibrationData, random_data
from packager.shapes import apply_shapes

if TYPE_CHECKING:
    import numpy as np

    from packager.artifact import Artifact
    from packager.protocols import Source

    Array = np.ndarray[Any, Any]

SAMPLES = 4
_MOST_BYTES = 16 << 20  # links to boards are slow: one sample is enough where samples are large


@dataclasses.dataclass(frozen=True)
class GoldenVectors:
    """Arrays by name, the first axis the golden sample; `made_from` is calibration, example or random."""

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    made_from: str

    @property
    def samples(self) -> int:
        """The number of golden samples."""
        return len(next(iter(self.inputs.values())))

    def feeds(self) -> list[dict[str, Array]]:
        """One dict of inputs per sample."""
        import numpy as np

        # A scalar's sample is no array by itself.
        rows = range(self.samples)
        return [{name: np.asarray(array[index]) for name, array in self.inputs.items()} for index in rows]


def make_golden(
    source: Source, artifact: Artifact, calibration: CalibrationData | None, shapes: Mapping[str, Sequence[int | str]]
) -> GoldenVectors:
    """Runs the original on samples of the calibration data, else on the source's example, else on random numbers."""
    import numpy as np

    feeds, made_from = _feeds(source, artifact, calibration, shapes)
    feeds = _unless_large(feeds)
    results = list(source.run(artifact, feeds))
    inputs = {name: np.stack([feed[name] for feed in feeds]) for name in feeds[0]}
    outputs = {name: np.stack([np.asarray(result[name]) for result in results]) for name in results[0]}
    return GoldenVectors(inputs=inputs, outputs=outputs, made_from=made_from)


def _feeds(
    source: Source, artifact: Artifact, calibration: CalibrationData | None, shapes: Mapping[str, Sequence[int | str]]
) -> tuple[list[dict[str, Array]], str]:
    if calibration is not None and calibration.kind != "random":
        return list(calibration.feeds(SAMPLES)), "calibration"
    specs = sized(artifact, shapes)
    example = source.example(artifact)
    if example is not None and all(list(example[s.name].shape) == list(s.shape) for s in specs):
        return [example], "example"
    if calibration is not None:
        return list(calibration.feeds(SAMPLES)), "random"
    return list(random_data(specs, integer_bounds(artifact), SAMPLES).feeds()), "random"


def sized(artifact: Artifact, shapes: Mapping[str, Sequence[int | str]]) -> list[TensorSpec]:
    """The inputs with every dimension a number: --shape first, a free first dimension (the batch) 1.

    Raises UsageError for any other free dimension.
    """
    known = apply_shapes(shapes, artifact.inputs)
    batches = {spec.shape[0] for spec in known if spec.shape and isinstance(spec.shape[0], str)}
    specs = []
    for spec in known:
        shape: list[int | str] = [1 if size in batches else size for size in spec.shape]
        free = [str(size) for size in shape if not isinstance(size, int)]
        if free:
            given = "x".join(str(size) if isinstance(size, int) else size.upper() for size in shape)
            raise UsageError(
                f"the input {spec.name!r} has free dimensions: {', '.join(free)}",
                expected="a size for each, to make golden inputs",
                fix=f"give --shape {spec.name}={given} with numbers, or real data with --calibration",
                code="free-dimensions",
            )
        specs.append(dataclasses.replace(spec, shape=shape))
    return specs


def integer_bounds(artifact: Artifact) -> dict[str, int]:
    """For integer inputs that index a table (token ids): the number of its rows, read from the ONNX graph."""
    if artifact.format != "onnx":
        return {}
    from packager.onnx_model import load_model

    graph = load_model(artifact.path, weights=False).graph
    rows = {tensor.name: tensor.dims[0] for tensor in graph.initializer if tensor.dims}
    aliases = {spec.name: spec.name for spec in artifact.inputs}
    bounds: dict[str, int] = {}
    for node in graph.node:
        if node.op_type in ("Cast", "Identity") and node.input[0] in aliases:
            aliases[node.output[0]] = aliases[node.input[0]]
        if node.op_type == "Gather" and node.input[0] in rows and node.input[1] in aliases:
            name = aliases[node.input[1]]
            bounds[name] = min(bounds.get(name, rows[node.input[0]]), rows[node.input[0]])
    return bounds


def _unless_large(feeds: list[dict[str, Array]]) -> list[dict[str, Array]]:
    size = sum(array.nbytes for array in feeds[0].values())
    return feeds[: max(1, min(len(feeds), _MOST_BYTES // max(1, size)))]
