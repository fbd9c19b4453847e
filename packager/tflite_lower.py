"""What every target that eats TFLite does: the graph cleaned, the precision made, quantised sources passed through."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError, UsageError
from agent.contract.finding import INFO, Finding
from agent.contract.manifest import Step
from packager.artifact import Artifact, digest_files
from packager.bundle.golden import GoldenVectors
from packager.compress.channel_scales import need_scale_per_channel
from packager.compress.quantize.tflite import float_findings, quantize_tflite
from packager.compress.quantize.tflite_joins import sound_outputs
from packager.compress.quantize.tflite_layers import compute_layers, computed_in_int8
from packager.tflite_constants import unfold_constants
from packager.tflite_graph import flatten_biases, fold_activations, fold_flattening, fold_pads, layout_findings
from packager.tflite_model import (
    is_quantized,
    model_inputs,
    model_outputs,
    peek_model,
    quantization_of,
    read_model,
    rename,
    to_bytes,
)
from packager.tflite_qdq import integer_ends
from packager.tflite_run import fit
from packager.tflite_transposes import fold_transposes

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from agent.contract.manifest import TensorSpec
    from packager.calibration import CalibrationData
    from packager.compress.onnx_layers import Layer
    from packager.protocols import Lowering
    from packager.recipe import Recipe

_STEPS = {
    "fp16": "to_float16",
    "int8-dynamic": "quantize_dynamic",
    "int8": "quantize_static",
    "int16x8": "quantize_16x8",
}


_REPAIRS = ("equalize", "smooth", "bias_correction")


def settled(recipe: Recipe, scope: str) -> Recipe:
    """The recipe with scope and input type filled in. Raises ConvertError for what TFLite's quantiser has not."""
    for kind in (recipe.weight_type, recipe.activation_type):
        if kind not in ("", "int8"):
            raise ConvertError(f"TFLite has no {kind} arithmetic", expected="int8", code="no-recipe")
    if recipe.float_products:
        raise ConvertError(
            "TFLite's products of integers are integers",
            expected="float_products = false",
            fix="leave out float_products; exclude leaves whole layers in float",
            code="no-recipe",
        )
    need_scale_per_channel(recipe)
    io = "" if recipe.precision not in ("int8", "int16x8") else recipe.io or "int8"
    return dataclasses.replace(recipe, scope=recipe.scope or scope, io=io)


def plan_steps(artifact: Artifact, recipe: Recipe) -> list[tuple[str, dict[str, Any]]]:
    """The names and options of what `lower_tflite` does."""
    if artifact.quantized or recipe.precision == "fp32":
        return []
    return [(_STEPS[recipe.precision], options_of(recipe))]


def options_of(recipe: Recipe) -> dict[str, Any]:
    """What the step's entry in the manifest tells."""
    if recipe.precision == "fp16":
        return {"io": "float"}
    options: dict[str, Any] = {"per_channel": recipe.per_channel}
    if recipe.precision != "int8-dynamic":
        io = "int16" if recipe.precision == "int16x8" and recipe.io == "int8" else recipe.io
        options |= {"method": recipe.method, "scope": recipe.scope, "io": io}
        if recipe.method == "percentile":
            options["percentile"] = recipe.percentile
        options |= {key: True for key in _REPAIRS if getattr(recipe, key)}
    if recipe.exclude:
        options["exclude"] = list(recipe.exclude)
    return options


def lower_tflite(artifact: Artifact, job: Lowering, recipe: Recipe) -> Artifact:
    """The artifact in the recipe's precision. Raises ConvertError, or UsageError for missing calibration data."""
    _check_static(artifact, job.shapes)
    if artifact.quantized:
        return _passed_through(artifact, recipe)
    clean, findings = _clean(artifact, job, unfold=recipe.precision != "fp32")
    if recipe.precision == "fp32":
        return dataclasses.replace(clean, findings=(*clean.findings, *findings))
    path = job.workdir / "lowered.tflite"
    feeds = None
    if recipe.needs_calibration:
        if job.calibration is None:
            raise UsageError("INT8 needs calibration data", fix="--calibration DATA", code="no-calibration")
        findings += job.calibration.findings()
        feeds = functools.partial(calibration_feeds, artifact, job.calibration)
        free = not job.recipe.io and recipe.scope != "all"
        recipe, told = sound_outputs(clean.path.read_bytes(), recipe, feeds, job.cache, free=free)
        findings += told
    findings += [*_whole_numbers(artifact, recipe)]
    findings += quantize_tflite(clean.path, path, recipe, feeds, job.progress, job.cache)
    model = read_model(path)
    check_computed(model, clean, recipe)
    rename(model, [spec.name for spec in artifact.inputs], [spec.name for spec in artifact.outputs])
    path.write_bytes(to_bytes(model))
    digest = digest_files([path])
    tool = f"ai-edge-quantizer {importlib.metadata.version('ai-edge-quantizer')}"
    return dataclasses.replace(
        clean,
        path=path,
        digest=digest,
        inputs=_kept_layout(model_inputs(model), artifact.inputs),
        outputs=_kept_layout(model_outputs(model), artifact.outputs),
        quantized=is_quantized(model),
        steps=(*clean.steps, Step(_STEPS[recipe.precision], tool, options_of(recipe), digest)),
        findings=(*clean.findings, *findings),
    )


def check_computed(model: Any, clean: Artifact, recipe: Recipe) -> None:
    """A quantiser that knows none of the operators still rounds the inputs, and calls that INT8: raises ConvertError."""
    if recipe.precision != "int8" or recipe.operators:
        return
    rows = [one for one in compute_layers(peek_model(clean.path)) if one.name not in recipe.exclude]
    if rows and not any(computed_in_int8(model)):
        kinds = ", ".join(sorted({one.operator for one in rows}))
        raise ConvertError(
            "the quantiser left everything that multiplies in float",
            where=f"{kinds} with weights that are not constants of the file, or of no type that it takes",
            expected="constant float weights",
            fix="convert the model anew from its source, or take --recipe fp32",
            code="nothing-to-quantise",
        )


def layers(artifact: Artifact, job: Lowering) -> list[Layer]:
    """The operators that multiply, of the graph as the quantiser sees it; named by their outputs, as `exclude` takes them."""
    clean, _ = _clean(artifact, job, unfold=True)
    return compute_layers(peek_model(clean.path))


def levers(recipe: Recipe) -> list[tuple[str, dict[str, Any]]]:
    """The changes that leave every layer in INT8, by their cost; those that the recipe has already left out."""
    rows: list[tuple[str, dict[str, Any]]] = [
        ("per channel", {"per_channel": True}),
        ("bias correction", {"bias_correction": True}),
        # Smoothed channels make weights wider, whose rounding shifts what layers give: never without the correction.
        ("smoothed activations", {"smooth": True, "bias_correction": True, "per_channel": True}),
        ("clipped ranges (MSE)", {"method": "mse"}),
        ("clipped ranges (percentile)", {"method": "percentile", "percentile": 99.99}),
        ("clipped ranges (lower percentile)", {"method": "percentile", "percentile": 99.9}),
        ("clipped ranges (entropy)", {"method": "entropy"}),
        ("cross-layer equalisation", {"equalize": True}),
    ]
    return [(words, change) for words, change in rows if dataclasses.replace(recipe, **change) != recipe]


def int8_names(lowered: Artifact, rows: Sequence[Layer]) -> set[str]:
    """Which of the layers take and hold INT8. The quantiser keeps their order and adds none."""
    inside = computed_in_int8(peek_model(lowered.path))
    return {row.name for row, taken in zip(rows, inside, strict=True) if taken}


def _check_static(artifact: Artifact, shapes: Mapping[str, Sequence[int | str]]) -> None:
    named = [name for name, shape in shapes.items() if any(isinstance(size, str) for size in shape)]
    if named:
        raise ConvertError(
            f"free dimensions in a TFLite model: {', '.join(named)}",
            expected="numbers: TFLite's memory is planned for fixed shapes",
            fix="give --shape with numbers only",
            code="dynamic-shape",
        )
    del artifact


def _clean(artifact: Artifact, job: Lowering, *, unfold: bool) -> tuple[Artifact, list[Finding]]:
    """`unfold`: weights stored in halves become floats, as the quantiser wants them; else the file stays as small as it is."""
    model = read_model(artifact.path)
    unfolded = unfold_constants(model) if unfold else 0
    folded = fold_pads(model)
    transposes = fold_transposes(model) + fold_flattening(model)
    flattened, fused = flatten_biases(model), fold_activations(model)
    rename(model, [spec.name for spec in artifact.inputs], [spec.name for spec in artifact.outputs])
    path = job.workdir / "clean.tflite"
    path.write_bytes(to_bytes(model))
    digest = digest_files([path])
    counts = {
        "constants_unfolded": unfolded,
        "pads_folded": folded,
        "transposes_folded": transposes,
        "biases_flattened": flattened,
        "activations_fused": fused,
    }
    options = {key: value for key, value in counts.items() if value}
    steps = (*artifact.steps, Step("clean_graph", "edgepack", options, digest)) if options else artifact.steps
    return dataclasses.replace(artifact, path=path, digest=digest, steps=steps), layout_findings(model)


def _whole_numbers(artifact: Artifact, recipe: Recipe) -> Iterator[Finding]:
    """`io` speaks of real numbers only: an id that is rounded to a scale would be another word."""
    named = ", ".join(
        f"{spec.name} ({spec.dtype})" for spec in artifact.inputs if spec.dtype.startswith(("int", "uint"))
    )
    if named and recipe.io == "int8":
        text = f"whole numbers, such as token ids, are taken as they are, not as INT8: {named}"
        yield Finding("integer-inputs", INFO, text, "")


def _passed_through(artifact: Artifact, recipe: Recipe) -> Artifact:
    if recipe.precision in ("fp16", "int8-dynamic", "int16x8"):
        raise ConvertError(
            f"the source is already quantised: it cannot become {recipe.precision}",
            fix="build from the float model, or take --recipe int8 to pass this one through",
            code="already-quantised",
        )
    model = read_model(artifact.path)
    if any(step.name == "convert_learned" for step in artifact.steps):
        return _learned(artifact, model, recipe)
    finding = Finding("already-quantised", INFO, "the source is already quantised: passed through as it is", "")
    return dataclasses.replace(artifact, findings=(*artifact.findings, finding, *layout_findings(model)))


def _learned(artifact: Artifact, model: Any, recipe: Recipe) -> Artifact:
    """Learned ranges are in the operators already; what is left is whether inputs and outputs are integers too."""
    more = [*float_findings(model, recipe), *layout_findings(model)]
    if recipe.io == "float" or recipe.precision != "int8":
        return dataclasses.replace(artifact, findings=(*artifact.findings, *more))
    integer_ends(model)
    rename(model, [spec.name for spec in artifact.inputs], [spec.name for spec in artifact.outputs])
    path = artifact.path.with_name("lowered.tflite")
    path.write_bytes(to_bytes(model))
    return dataclasses.replace(
        artifact,
        path=path,
        digest=digest_files([path]),
        inputs=_kept_layout(model_inputs(model), artifact.inputs),
        outputs=_kept_layout(model_outputs(model), artifact.outputs),
        findings=(*artifact.findings, *more),
    )


def _kept_layout(specs: Sequence[TensorSpec], before: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    return tuple(dataclasses.replace(spec, layout=old.layout) for spec, old in zip(specs, before, strict=True))


def calibration_feeds(
    artifact: Artifact, calibration: CalibrationData, most: int | None
) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
    """The calibration samples, `most` or all of them, as the float TFLite model takes them."""
    given = {spec.name: spec for spec in calibration.specs}
    for feed in calibration.feeds(most):
        yield {spec.name: fit(feed[spec.name], given[spec.name], spec) for spec in artifact.inputs}


def fit_golden(original: Artifact, lowered: Artifact, golden: GoldenVectors) -> GoldenVectors:
    """Golden inputs in the lowered model's layout and integers; outputs in its layout, as real numbers."""
    scales = quantization_of(peek_model(lowered.path))
    inputs = {
        new.name: fit(golden.inputs[old.name], old, new, scales.get(new.name))
        for old, new in zip(original.inputs, lowered.inputs, strict=True)
    }
    outputs = {
        new.name: fit(
            golden.outputs[old.name], old, dataclasses.replace(new, dtype=str(golden.outputs[old.name].dtype))
        )
        for old, new in zip(original.outputs, lowered.outputs, strict=True)
    }
    return GoldenVectors(inputs=inputs, outputs=outputs, made_from=golden.made_from)
