"""What a search for accuracy may turn in the static quantisation of ONNX graphs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packager.calibration import random_data
from packager.compress.onnx_layers import Layer, layers_of
from packager.compress.quantize.onnx_mixed import COMPUTE
from packager.compress.quantize.onnx_static import prepared_graph
from packager.onnx_model import model_inputs
from packager.shapes import apply_shapes

if TYPE_CHECKING:
    from agent.contract.manifest import TensorSpec
    from packager.protocols import Lowering
    from packager.recipe import Recipe


def quantised_layers(source: Path, job: Lowering) -> list[Layer]:
    """The layers of the graph as the quantiser sees it: folded, every node named; sized by one sample."""
    model = prepared_graph(source, job.workdir / "layers.onnx", job.cache)
    wanted = job.recipe.operators or COMPUTE
    data = job.calibration or random_data(_sized(model, job), {}, 1)
    rows = layers_of(model, next(data.feeds(1)))
    return [row for row in rows if row.operator in wanted]


def _sized(model: Any, job: Lowering) -> list[TensorSpec]:
    """The inputs with every free dimension 1: the shares of layers hardly depend on it."""
    known = apply_shapes(job.shapes, model_inputs(model))
    return [
        dataclasses.replace(spec, shape=[size if isinstance(size, int) else 1 for size in spec.shape]) for spec in known
    ]


def levers(recipe: Recipe) -> list[tuple[str, dict[str, Any]]]:
    """The changes that leave every layer in INT8, by their cost; those that the recipe has already left out."""
    rows: list[tuple[str, dict[str, Any]]] = [
        ("per channel", {"per_channel": True}),
        ("matrix products give floats", {"float_products": True}),
        ("bias correction", {"bias_correction": True}),
        # Smoothed channels make weights wider, whose rounding shifts what layers give: never without the correction.
        ("smoothed activations", {"smooth": True, "bias_correction": True}),
        ("clipped ranges (MSE)", {"method": "mse"}),
        ("clipped ranges (percentile)", {"method": "percentile", "percentile": 99.99}),
        ("clipped ranges (entropy)", {"method": "entropy"}),
        ("cross-layer equalisation", {"equalize": True}),
    ]
    return [(words, change) for words, change in rows if dataclasses.replace(recipe, **change) != recipe]
