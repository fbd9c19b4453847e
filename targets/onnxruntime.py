"""ONNX Runtime on Linux boards and desktops: fp32, fp16, dynamic and static INT8."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError, UsageError
from agent.contract.finding import INFO, WARNING, Finding
from agent.contract.manifest import RuntimeNeed, Step, Tolerance
from packager.artifact import Artifact, digest_files
from packager.compress.onnx_layers import Layer, int8_layers
from packager.compress.quantize.onnx_tuning import levers, quantised_layers
from packager.onnx_lower import plan_prepare, prepare
from packager.onnx_model import (
    external_files,
    has_signed_weights,
    is_quantized,
    load_model,
    model_inputs,
    model_outputs,
    need_onnxruntime,
)
from packager.onnx_versions import limits, oldest_for
from packager.sources.onnx import run_onnx

if TYPE_CHECKING:
    import numpy as np

    from packager.profile import Profile
    from packager.protocols import Arrays, Lowering, Terms
    from packager.recipe import Recipe

# How far the device's outputs may be from the original's. INT8 networks that keep their accuracy stay above 0.98 (the
# same bound in the survey of converters); floats differ by rounding only.
_TOLERANCES = {
    "fp32": Tolerance(min_cosine=0.9999, max_abs=1e-4),
    "fp16": Tolerance(min_cosine=0.999, max_abs=1e-2),
    "int8-dynamic": Tolerance(min_cosine=0.98, max_abs=1e-3),
    "int8": Tolerance(min_cosine=0.98, max_abs=1e-3),
}
# onnxruntime's pass WeightBiasQuantization requantises, per tensor, a layer that was left in float between Q/DQ pairs.
_MIXED_PRECISION = {"disabled_optimizers": ["WeightBiasQuantization"]}
_FAST_INT8 = ("dotprod", "vnni")


class Onnxruntime:
    """The rules of this runtime."""

    name = "onnxruntime"
    title = "ONNX Runtime"
    format = "onnx"
    recipes: Sequence[str] = ("fp32", "fp16", "int8-dynamic", "int8")
    extra = ""
    fuses = True  # it knows the fused operators of packager.compress.fuse

    def plan(self, artifact: Artifact, job: Lowering) -> list[tuple[str, dict[str, Any]]]:
        """The steps, types chosen."""
        steps = plan_prepare(artifact, job.shapes, self.most_opset(job.profile))
        recipe = int8_types(job.recipe, job.profile)
        if artifact.quantized or recipe.precision == "fp32":
            return steps
        return [*steps, (_STEPS[recipe.precision], _options(recipe))]

    def lower(self, artifact: Artifact, job: Lowering) -> Artifact:
        """The model in the recipe's precision. Raises ConvertError or, without calibration data, UsageError."""
        ready = self._prepared(artifact, job)
        recipe = int8_types(job.recipe, job.profile)
        if ready.quantized:
            return _already_quantized(ready, recipe, job.profile)
        if recipe.precision == "fp32":
            return ready
        path = job.workdir / "lowered.onnx"
        findings = _apply(ready.path, path, recipe, job)
        model = load_model(path)
        if recipe.precision.startswith("int8") and not is_quantized(model):
            raise ConvertError(
                "INT8 was asked for, but no operator was quantised", fix="use --recipe fp32", code="nothing-to-quantise"
            )
        companions = tuple(path.parent / name for name in external_files(load_model(path, weights=False)))
        digest = digest_files([path, *companions])
        tool = f"onnxruntime {need_onnxruntime().__version__}"
        step = Step(_STEPS[recipe.precision], tool, _options(recipe), digest)
        return dataclasses.replace(
            ready,
            path=path,
            companions=companions,
            digest=digest,
            inputs=model_inputs(model),
            outputs=model_outputs(model),
            quantized=recipe.precision.startswith("int8"),
            steps=(*ready.steps, step),
            findings=(*ready.findings, *findings, *_doubts(path, recipe, job.profile)),
        )

    def terms(self, artifact: Artifact, job: Lowering) -> Terms:
        """The oldest onnxruntime that loads the file; the instructions that its INT8 numbers were chosen for."""
        from packager.protocols import Terms

        model = load_model(artifact.path, weights=False)
        need = RuntimeNeed(
            name=self.name,
            min_version=oldest_for(artifact.opset or 13, model.ir_version),
            cpu_features=needed_features(job.recipe, job.profile),
        )
        # A source that came quantised computes in INT8, whatever precision was asked for.
        precision = "int8" if artifact.quantized else job.recipe.precision
        options = dict(_MIXED_PRECISION) if precision == "int8" else {}
        return Terms(need=need, tolerance=_TOLERANCES[precision], session_options=options)

    def run(self, artifact: Artifact, batches: Sequence[Arrays]) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
        """Without optimisations: Q/DQ computed in float, so that this host's INT8 kernels cannot mislead."""
        return run_onnx(artifact.path, batches, [spec.name for spec in artifact.outputs])

    def layers(self, artifact: Artifact, job: Lowering) -> list[Layer]:
        """Of the graph as the quantiser sees it."""
        return quantised_layers(self._prepared(artifact, job).path, job)

    def levers(self, recipe: Recipe, profile: Profile) -> list[tuple[str, dict[str, Any]]]:
        """Calibration methods, equalisation, bias correction; per channel, other types where the device has both."""
        settled = int8_types(recipe, profile)
        rows = levers(settled)
        if settled.activation_type == "int8" and not settled.asymmetric:
            rows.insert(0, ("asymmetric activations", {"asymmetric": True}))
        if "vnni" in profile.cpu.features and not recipe.weight_type:
            other = "uint8" if settled.weight_type == "int8" else "int8"
            rows.append((f"{other} weights", {"weight_type": other}))
        return rows

    def int8_layers(self, lowered: Artifact, layers: Sequence[Layer]) -> set[str]:
        """By the Q/DQ pairs and the integer operators of the file."""
        del layers
        return int8_layers(load_model(lowered.path, weights=False))

    def _prepared(self, artifact: Artifact, job: Lowering) -> Artifact:
        version = job.profile.runtime(self.name).version
        return prepare(artifact, job.shapes, self.most_opset(job.profile), limits(version).ir_version, job.workdir)

    def most_opset(self, profile: Profile) -> int:
        """The highest opset that the profile's version of the runtime loads, and that the profile allows."""
        cap = profile.opset_cap(self.name)
        most = limits(profile.runtime(self.name).version).opset
        return most if cap is None else min(most, cap)


_STEPS = {"fp16": "to_float16", "int8-dynamic": "quantize_dynamic", "int8": "quantize_static"}


def int8_types(recipe: Recipe, profile: Profile) -> Recipe:
    """The recipe with the types that the *device's* instructions compute rightly and fast.

    x86 without VNNI multiplies unsigned by signed bytes with an instruction that saturates (VPMADDUBSW): unsigned weights
    avoid it. x86 with VNNI takes unsigned activations and signed weights. ARM multiplies signed by signed.
    """
    if not recipe.precision.startswith("int8"):
        return recipe
    features, arch = profile.cpu.features, profile.cpu.arch
    if arch == "x86_64":
        weight, activation = ("int8", "uint8") if "vnni" in features else ("uint8", "uint8")
    else:
        weight, activation = "int8", "int8"
    return dataclasses.replace(
        recipe,
        weight_type=recipe.weight_type or profile.int8.weight_type or weight,
        activation_type=recipe.activation_type or profile.int8.activation_type or activation,
        scope=recipe.scope or profile.int8.scope,
    )


def needed_features(recipe: Recipe, profile: Profile) -> list[str]:
    """INT8 bundles need the integer instructions they were made for: elsewhere they are slower than float, or saturate."""
    if recipe.precision != "int8":
        return []
    return [name for name in _FAST_INT8 if name in profile.cpu.features]


def _options(recipe: Recipe) -> dict[str, Any]:
    if recipe.precision == "fp16":
        return {"keep_io_types": recipe.keep_io_types}
    options: dict[str, Any] = {"weight_type": recipe.weight_type, "per_channel": recipe.per_channel}
    if recipe.precision == "int8":
        options |= {"activation_type": recipe.activation_type, "method": recipe.method, "scope": recipe.scope}
        if recipe.method == "percentile":
            options["percentile"] = recipe.percentile
    turned = ("equalize", "bias_correction", "asymmetric", "smooth", "float_products")
    options |= {key: True for key in turned if getattr(recipe, key)}
    if recipe.exclude:
        options["exclude"] = list(recipe.exclude)
    return options


def _apply(source: Path, result: Path, recipe: Recipe, job: Lowering) -> list[Finding]:
    if recipe.precision == "fp16":
        from packager.compress.half import to_half

        job.progress("converting to float16")
        to_half(source, result, keep_io_types=recipe.keep_io_types)
        return []
    if recipe.precision == "int8-dynamic":
        from packager.compress.quantize.onnx_dynamic import quantize_dynamic

        job.progress("quantising weights")
        return quantize_dynamic(source, result, recipe)
    if job.calibration is None:
        raise UsageError("INT8 needs calibration data", fix="--calibration DATA", code="no-calibration")
    from packager.compress.quantize.onnx_static import quantize_static

    static = quantize_static(source, result, job.calibration, recipe, job.progress, cache=job.cache)
    return [*job.calibration.findings(), *static]


def _already_quantized(artifact: Artifact, recipe: Recipe, profile: Profile) -> Artifact:
    if recipe.precision == "fp16":
        raise ConvertError(
            "the source is already quantised: it cannot become float16",
            fix="build from the float model, or take --recipe int8 to pass this one through",
            code="already-quantised",
        )
    text = f"the source is already quantised: passed through as it is, the recipe {recipe.name} does nothing"
    findings = [Finding("already-quantised", INFO, text, ""), *_saturation(artifact.path, profile)]
    return dataclasses.replace(artifact, findings=(*artifact.findings, *findings))


def _saturation(path: Path, profile: Profile) -> list[Finding]:
    """See `int8_types`: the trap of signed weights."""
    if profile.cpu.arch != "x86_64" or "vnni" in profile.cpu.features:
        return []
    if not has_signed_weights(load_model(path, weights=False)):
        return []
    text = f"signed INT8 weights: sums may saturate in the kernels of {profile.cpu.model}, and outputs be wrong there"
    advice = "build from the float model (unsigned weights are chosen then), and look at the parity on the device"
    return [Finding("signed-weights", WARNING, text, advice)]


def _doubts(path: Path, recipe: Recipe, profile: Profile) -> list[Finding]:
    features = profile.cpu.features
    if recipe.precision == "fp16" and "fp16" not in features:
        text = f"{profile.cpu.model} has no half-precision arithmetic: the model gets smaller, and likely slower"
        return [Finding("fp16-unsupported", WARNING, text, "measure with `edgepack bench`, beside fp32")]
    doubts: list[Finding] = []
    if recipe.precision == "int8" and not any(name in features for name in _FAST_INT8):
        text = f"{profile.cpu.model} has no 8-bit dot product: INT8 may be no faster than fp32 there"
        doubts.append(Finding("int8-maybe-slow", INFO, text, "measure with `edgepack bench`, beside fp32"))
    return doubts + (_saturation(path, profile) if recipe.precision.startswith("int8") else [])
