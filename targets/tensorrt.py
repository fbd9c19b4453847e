"""TensorRT on Jetson: a portable ONNX model in explicit types; the engine is built and cached on the device.

Neither an engine nor a timing cache is in the bundle: both belong to one GPU and one TensorRT.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ContractError, ConvertError, UsageError
from agent.contract.finding import INFO, WARNING, Finding
from agent.contract.manifest import RuntimeNeed, Step, Tolerance
from packager.artifact import Artifact, digest_files
from packager.compress.onnx_layers import Layer, int8_layers
from packager.compress.quantize.onnx_tuning import levers, quantised_layers
from packager.onnx_lower import plan_prepare, prepare
from packager.onnx_model import (
    clean,
    is_quantized,
    load_model,
    model_inputs,
    model_outputs,
    move_opset,
    opset,
    save_model,
)
from packager.sources.onnx import run_onnx
from packager.tensorrt import dla, explained, operators, rules, split, versions
from packager.tensorrt.preflight import LABEL, preflight
from packager.tensorrt.quantize import quantize
from packager.tensorrt.repair import fold, repair
from packager.units import parse_bytes

if TYPE_CHECKING:
    import numpy as np

    from packager.bundle.golden import GoldenVectors
    from packager.profile import Profile
    from packager.protocols import Arrays, Lowering, Terms
    from packager.recipe import Recipe
    from packager.shapes import Shape

# As for ONNX Runtime: what keeps its accuracy stays above these; the GPU's TF32 and FP16 kernels round more than a CPU.
_TOLERANCES = {
    "fp32": Tolerance(min_cosine=0.9999, max_abs=1e-3),
    "fp16": Tolerance(min_cosine=0.999, max_abs=1e-2),
    "int8": Tolerance(min_cosine=0.98, max_abs=1e-3),
    "int8-fp16": Tolerance(min_cosine=0.98, max_abs=1e-2),
}
_HALF_SCALES = 19  # the opset from which QuantizeLinear takes float16
_OPTIONS = ("jetpack", "l4t", "cuda", "workspace", "preflight", "dla")


class Tensorrt:
    """The rules of this runtime."""

    name = "tensorrt"
    title = "TensorRT"
    format = "onnx"
    recipes: Sequence[str] = ("fp32", "fp16", "int8", "int8-fp16")
    extra = ""
    ranges = True
    options: Sequence[str] = ("workspace_mb", "dla")

    def plan(self, artifact: Artifact, job: Lowering) -> list[tuple[str, dict[str, Any]]]:
        """The steps, types chosen."""
        job = dla.with_options(job)
        limits = self._limits(job.profile)
        steps = plan_prepare(artifact, _shapes(artifact, job), self._most_opset(job.profile))
        steps.append(("repair", {"tensorrt": versions.show(limits.version)}))
        recipe = _types(job.recipe)
        if recipe.needs_calibration and not artifact.quantized:
            steps.append(("quantize_static", _quantize_options(recipe)))
        if _half(recipe, limits):
            steps.append(("to_float16", {"keep_io_types": recipe.keep_io_types}))
        return [*steps, ("preflight", {"tensorrt": versions.show(limits.version)})]

    def lower(self, artifact: Artifact, job: Lowering) -> Artifact:
        """The model in the recipe's precision, repaired, checked by the rules and by the preflight.

        Raises ConvertError with node and operator where TensorRT would refuse it, UsageError without calibration data.
        """
        job = dla.with_options(job)
        limits, recipe = self._limits(job.profile), _types(job.recipe)
        dla.check(job.profile, recipe)
        if artifact.quantized and recipe.precision == "fp16":
            raise ConvertError(
                "the source is already quantised: it cannot become float16",
                fix="build from the float model, or take --recipe int8 to pass this one through",
                code="already-quantised",
            )
        work = self._repaired(artifact, job)
        half = _half(recipe, limits)
        if half and recipe.needs_calibration:
            work.raise_opset(_HALF_SCALES, self._most_opset(job.profile))
        if recipe.needs_calibration and not work.artifact.quantized:
            work.quantize(recipe)
        if half:
            work.half(recipe)
        work.preflight(skip=job.profile.runtime(self.name).options.get("preflight", True) is False)
        return work.artifact

    def terms(self, artifact: Artifact, job: Lowering) -> Terms:
        """The major version of TensorRT that it was made for; workspace and optimisation profiles for the build."""
        from packager.protocols import Terms

        job = dla.with_options(job)
        entry = job.profile.runtime(self.name)
        limits = self._limits(job.profile)
        oldest = (10, 0) if limits.strong else versions.OLDEST
        needed = [operators.since(node.op_type) for node in load_model(artifact.path, weights=False).graph.node]
        first = max([oldest, *(one for one in needed if one is not None)])
        if not limits.strong:
            first = max(first, limits.version)
        options: dict[str, Any] = {"precision": job.recipe.precision, "strong": limits.strong}
        core = dla.core_of(job.profile)
        if core is not None:
            options["dla"] = core
        if "workspace" in entry.options:
            options["workspace_bytes"] = parse_bytes(
                entry.options["workspace"], "$.runtimes.tensorrt.options.workspace"
            )
        if job.ranges:
            options["profiles"] = [
                {name: [list(one.least), list(one.usual), list(one.most)] for name, one in job.ranges.items()}
            ]
        need = RuntimeNeed(
            name=self.name, min_version=versions.show(first), below_version=versions.below(entry.version)
        )
        facts = explained.kept(artifact.path.parent)
        tolerance, beside = _TOLERANCES[job.recipe.precision], split.files(artifact.path.parent)
        return Terms(need=need, tolerance=tolerance, session_options=options, files=beside, facts=facts)

    def run(self, artifact: Artifact, batches: Sequence[Arrays]) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
        """On the host without optimisations: the meaning of the Q/DQ graph, not TensorRT's kernels."""
        return run_onnx(artifact.path, batches, [spec.name for spec in artifact.outputs])

    def fit_golden(self, original: Artifact, lowered: Artifact, golden: GoldenVectors) -> GoldenVectors:
        """The outputs of the engine's half, where the model was split before its NonMaxSuppression."""
        del original
        return split.fit(lowered.path.parent, golden)

    def layers(self, artifact: Artifact, job: Lowering) -> list[Layer]:
        """Of the graph as the quantiser sees it: repaired."""
        return quantised_layers(self._repaired(artifact, dla.with_options(job)).artifact.path, job)

    def levers(self, recipe: Recipe, profile: Profile) -> list[tuple[str, dict[str, Any]]]:
        """Calibration methods, equalisation, bias correction, per channel; TensorRT's INT8 is symmetric."""
        del profile
        # No layer's output is rounded for TensorRT, whatever the recipe says.
        return [row for row in levers(_types(recipe)) if "float_products" not in row[1]]

    def int8_layers(self, lowered: Artifact, layers: Sequence[Layer]) -> set[str]:
        """By the Q/DQ pairs of the file."""
        del layers
        return int8_layers(load_model(lowered.path, weights=False))

    def _repaired(self, artifact: Artifact, job: Lowering) -> _Work:
        limits, shapes = self._limits(job.profile), _shapes(artifact, job)
        ready = prepare(artifact, shapes, self._most_opset(job.profile), limits.ir_version, job.workdir)
        work = _Work(job, limits, ready)
        work.note_shapes(set(shapes) - set(job.shapes))
        work.repair()
        work.demand_rules()
        return work

    def _limits(self, profile: Profile) -> versions.Limits:
        entry = profile.runtime(self.name)
        for key in entry.options:
            if key not in _OPTIONS:
                raise ContractError(
                    f"$.runtimes.tensorrt.options: unknown key {key!r}",
                    where=f"profile {profile.name}",
                    expected=f"one of: {', '.join(_OPTIONS)}",
                    code="unknown-key",
                )
        return dla.limits_for(profile, versions.limits(entry.version))

    def _most_opset(self, profile: Profile) -> int:
        cap, most = profile.opset_cap(self.name), self._limits(profile).opset
        return most if cap is None else min(most, cap)


class _Work:
    """The artifact on its way down: each step writes a file, is recorded, and may leave findings."""

    def __init__(self, job: Lowering, limits: versions.Limits, artifact: Artifact) -> None:
        self.job, self.limits, self.artifact = job, limits, artifact
        self.doubts: list[rules.NodeVerdict] = []
        self._count = 0

    def note_shapes(self, fixed: set[str]) -> None:
        """Says which free batches were set to one."""
        if fixed:
            text = f"an engine needs sizes: the free batch of {', '.join(sorted(fixed))} is 1"
            advice = "--shape NAME=MIN:OPT:MAX leaves a range, --shape NAME=8x3x224x224 sets another"
            self._add(Finding("batch-fixed", INFO, text, advice))

    def repair(self) -> None:
        """The exact rewrites that this TensorRT needs."""
        parts = split.split(load_model(self.artifact.path))
        if parts is not None:
            split.keep(parts, self.job.workdir)
            self.write(parts.head, "split", {"outside": list(parts.nodes)})
            self._add(parts.finding())
        model, told = repair(load_model(self.artifact.path), self.limits.version)
        if told:
            self.write(model, "repair", {"done": told})
            self._say("repaired", told)

    def write(self, model: Any, step: str, options: Mapping[str, Any], tool: str = "") -> None:
        """Takes `model` as the artifact."""
        import onnx

        self._count += 1
        model.ir_version = min(model.ir_version, self.limits.ir_version)
        path = self.job.workdir / f"tensorrt-{self._count}.onnx"
        companions = save_model(clean(model), path)
        digest = digest_files([path, *companions])
        self.artifact = dataclasses.replace(
            self.artifact,
            path=path,
            companions=companions,
            digest=digest,
            inputs=model_inputs(model),
            outputs=model_outputs(model),
            opset=opset(model),
            quantized=is_quantized(model),
            steps=(*self.artifact.steps, Step(step, tool or f"onnx {onnx.__version__}", dict(options), digest)),
        )

    def demand_rules(self) -> None:
        """The static rules; what they refuse is tried again with constants folded, which often removes it."""
        model = load_model(self.artifact.path)
        found = rules.check(model, self.limits.version, self.job.ranges)
        if any(one.operator not in ("input", "tensor") for one in rules.rejected(found)):
            folded, more = repair(fold(model, self.job.workdir / "folded.onnx"), self.limits.version)
            again = rules.check(folded, self.limits.version, self.job.ranges)
            if len(rules.rejected(again)) < len(rules.rejected(found)):
                found = again
                self.write(folded, "fold_constants", {})
                self._say("repaired", ["what depends on no input was computed beforehand", *more])
        self.doubts = [one for one in found if one.verdict == rules.UNVERIFIED]
        if rules.rejected(found):
            raise _rejected(
                rules.rejected(found), f"TensorRT {versions.show(self.limits.version)} by its operator table"
            )

    def raise_opset(self, least: int, most: int) -> None:
        """QuantizeLinear takes float16 from opset 19 on. Raises ConvertError where the profile stops before."""
        if least > most:
            raise ConvertError(
                f"int8-fp16 needs opset {least}, and the profile stops at {most}",
                where=f"profile {self.job.profile.name}",
                fix="--recipe int8, or raise the profile's max_opset",
                code="opset",
            )
        now = self.artifact.opset or 0
        if now < least:
            self.write(move_opset(load_model(self.artifact.path), least), "move_opset", {"from": now, "to": least})

    def quantize(self, recipe: Recipe) -> None:
        """Explicit symmetric Q/DQ."""
        import onnxruntime

        if self.job.calibration is None:
            raise UsageError("INT8 needs calibration data", fix="--calibration DATA", code="no-calibration")
        path = self.job.workdir / "quantized.onnx"
        findings = quantize(
            self.artifact.path,
            path,
            self.job.calibration,
            recipe,
            self.job.progress,
            strong=self.limits.strong,
            cache=self.job.cache,
        )
        model = load_model(path)
        self.write(model, "quantize_static", _quantize_options(recipe), f"onnxruntime {onnxruntime.__version__}")
        self._add(*self.job.calibration.findings(), *findings)
        broken = rules.rejected(rules.check(model, self.limits.version, self.job.ranges))
        if broken:
            raise _rejected(broken, "the quantised model")

    def half(self, recipe: Recipe) -> None:
        """Types in the ONNX file: float16 wherever it is safe."""
        import onnxruntime

        from packager.compress.half import to_half

        self.job.progress("converting to float16")
        path = self.job.workdir / "half.onnx"
        to_half(self.artifact.path, path, keep_io_types=recipe.keep_io_types)
        options = {"keep_io_types": recipe.keep_io_types}
        self.write(load_model(path), "to_float16", options, f"onnxruntime {onnxruntime.__version__}")

    def preflight(self, *, skip: bool) -> None:
        """NVIDIA's own parser and builder, where they are installed. Raises ConvertError when they refuse."""
        if skip:
            self._add(Finding("tensorrt-preflight", WARNING, "not-checked: the profile turns the preflight off", ""))
            return
        self.job.progress("preflight: NVIDIA's parser and builder")
        told = preflight(self.artifact.path, self.job.ranges, self.doubts)
        if told.verdict == rules.REJECTED:
            raise _rejected(told.nodes, f"{told.tool} ({LABEL})")
        if told.rows:
            explained.keep([*told.rows], self.artifact.path.parent)
        self._add(*told.findings())
        self._add(Finding("not-on-hardware", INFO, f"edgepack's TensorRT road was {LABEL} by its makers", ""))

    def _say(self, code: str, told: Sequence[str]) -> None:
        if told:
            self._add(Finding(code, INFO, "; ".join(told), ""))

    def _add(self, *findings: Finding) -> None:
        self.artifact = dataclasses.replace(self.artifact, findings=(*self.artifact.findings, *findings))


def _shapes(artifact: Artifact, job: Lowering) -> dict[str, Shape]:
    """The user's shapes, and the batch set to 1 where it is an input's only free dimension."""
    shapes = dict(job.shapes)
    for spec in artifact.inputs:
        free = [axis for axis, size in enumerate(spec.shape) if not isinstance(size, int)]
        if free == [0] and spec.name not in {*shapes, *job.ranges}:
            shapes[spec.name] = (1, *spec.shape[1:])
    return shapes


def _types(recipe: Recipe) -> Recipe:
    """TensorRT multiplies signed symmetric INT8 only. Raises ConvertError for a recipe that wants others."""
    if not recipe.needs_calibration:
        return recipe
    for key in ("weight_type", "activation_type"):
        if getattr(recipe, key) not in ("", "int8"):
            raise ConvertError(
                f"TensorRT has no {getattr(recipe, key)} arithmetic",
                where=f"{key} of the recipe {recipe.name}",
                expected="int8",
                fix=f"leave {key} out of the recipe",
                code="int8-types",
            )
    return dataclasses.replace(recipe, weight_type="int8", activation_type="int8", scope=recipe.scope or "compute")


def _quantize_options(recipe: Recipe) -> dict[str, Any]:
    options: dict[str, Any] = {"type": "int8", "symmetric": True, "per_channel": recipe.per_channel}
    options |= {"method": recipe.method, "scope": recipe.scope}
    if recipe.method == "percentile":
        options["percentile"] = recipe.percentile
    options |= {key: True for key in ("equalize", "bias_correction", "smooth") if getattr(recipe, key)}
    if recipe.exclude:
        options["exclude"] = list(recipe.exclude)
    return options


def _half(recipe: Recipe, limits: versions.Limits) -> bool:
    """Whether the file itself becomes float16. TensorRT 8 takes float16 beside INT8 by its builder's flags instead."""
    if recipe.precision == "fp16":
        return True
    return recipe.precision == "int8-fp16" and limits.strong


def _rejected(nodes: Sequence[rules.NodeVerdict], by: str) -> ConvertError:
    first = nodes[0]
    more = f" (and {len(nodes) - 1} more)" if len(nodes) > 1 else ""
    return ConvertError(
        f"TensorRT does not take the model: {first}{more}",
        where=f"{by}: " + "; ".join(str(node) for node in nodes[:8]),
        fix="; ".join(dict.fromkeys(node.fix for node in nodes if node.fix))[:600]
        or "take --runtime onnxruntime, which runs on the same board",
        code="tensorrt-rejected",
    )
