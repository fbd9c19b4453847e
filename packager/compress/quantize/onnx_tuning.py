"""What a search for accuracy may turn in the static quantisation of ONNX graphs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.errors import UsageError
from packager.compress.onnx_layers import Layer, layers_of
from packager.compress.quantize.onnx_static import COMPUTE, prepared_graph

if TYPE_CHECKING:
    from packager.protocols import Lowering
    from packager.recipe import Recipe


def quantised_layers(source: Path, job: Lowering) -> list[Layer]:
    """The layers of the graph as the quantiser sees it: folded, every node named. Raises UsageError without data."""
    if job.calibration is None:
        raise UsageError("INT8 needs calibration data", fix="--calibration DATA", code="no-calibration")
    model = prepared_graph(source, job.workdir / "layers.onnx", job.cache)
    wanted = job.recipe.operators or COMPUTE
    rows = layers_of(model, next(job.calibration.feeds(1)))
    return [row for row in rows if row.operator in wanted]


def levers(recipe: Recipe) -> list[tuple[str, dict[str, Any]]]:
    """The changes that leave every layer in INT8, by their cost; those that the recipe has already left out."""
    rows: list[tuple[str, dict[str, Any]]] = [
        ("clipped ranges (percentile)", {"method": "percentile", "percentile": 99.99}),
        ("clipped ranges (MSE)", {"method": "mse"}),
        ("clipped ranges (entropy)", {"method": "entropy"}),
        ("cross-layer equalisation", {"equalize": True}),
        ("bias correction", {"bias_correction": True}),
        ("per channel", {"per_channel": True}),
    ]
    return [(words, change) for words, change in rows if dataclasses.replace(recipe, **change) != recipe]
