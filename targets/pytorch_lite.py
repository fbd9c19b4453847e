"""PyTorch's lite interpreter (`.ptl`), for apps that still carry it; ExecuTorch is its successor."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError
from agent.contract.finding import INFO, Finding
from agent.contract.manifest import RuntimeNeed, Step, Tolerance
from packager import torch_models
from packager.artifact import Artifact, digest_files
from packager.torch_program import calibration_feeds, check_feeds, open_program

if TYPE_CHECKING:
    import numpy as np

    from packager.profile import Profile
    from packager.protocols import Arrays, Lowering, Terms
    from packager.recipe import Recipe
    from packager.torch_program import Program

_TOLERANCES = {
    "fp32": Tolerance(min_cosine=0.9999, max_abs=1e-4),
    "int8-dynamic": Tolerance(min_cosine=0.98, max_abs=1e-3),
    "int8": Tolerance(min_cosine=0.98, max_abs=1e-3),
}
_STEPS = {"int8-dynamic": "quantize_dynamic", "int8": "quantize_static"}
_CALIBRATE = 200


class PytorchLite:
    """The rules of this runtime."""

    name = "pytorch_lite"
    title = "PyTorch Lite"
    format = "torch"
    formats: Sequence[str] = ("torch", "torchscript", "pt2")
    options: Sequence[str] = ("bytecode",)
    recipes: Sequence[str] = ("fp32", "int8-dynamic", "int8")
    extra = "torch"

    def plan(self, artifact: Artifact, job: Lowering) -> list[tuple[str, dict[str, Any]]]:
        """The steps. Raises ConvertError for a source that cannot take the recipe."""
        _check_source(artifact, job.recipe)
        steps: list[tuple[str, dict[str, Any]]] = []
        if job.recipe.precision in _STEPS and not artifact.quantized:
            steps.append((_STEPS[job.recipe.precision], _options(job.recipe, job.profile)))
        bytecode = self._bytecode(job)
        save: dict[str, Any] = {} if bytecode is None else {"bytecode": bytecode}
        return [*steps, ("trace_or_script", {}), ("freeze", {}), ("save_lite", save)]

    def lower(self, artifact: Artifact, job: Lowering) -> Artifact:
        """The model as a `.ptl` in the recipe's precision. Raises ConvertError or, without calibration data, UsageError."""
        from packager.lite_file import freeze, write_lite
        from packager.torch_trace import plain_attention, to_script

        torch = torch_models.need_torch()
        _check_source(artifact, job.recipe)
        program = open_program(artifact, job)
        with plain_attention():
            module, findings, made = _quantise(program, job)
            job.progress("tracing")
            scripted = to_script(program, module, check_feeds(program, job))
        path = job.workdir / "model.ptl"
        bytecode = write_lite(freeze(scripted.module), path, self._bytecode(job))
        digest = digest_files([path])
        tool = f"torch {torch.__version__.partition('+')[0]}"
        steps = [Step(name, tool, options, "") for name, options in made]
        steps += [Step(scripted.how, tool, {}, ""), Step("freeze", tool, {}, "")]
        steps.append(Step("save_lite", tool, {"bytecode": bytecode}, digest))
        return dataclasses.replace(
            artifact,
            format="ptl",
            path=path,
            companions=(),
            digest=digest,
            inputs=program.inputs,
            quantized=job.recipe.precision != "fp32" or artifact.quantized,
            weights_bytes=None,
            steps=(*artifact.steps, *steps),
            findings=(*artifact.findings, *findings, *scripted.findings, *_notes(job.profile)),
        )

    def terms(self, artifact: Artifact, job: Lowering) -> Terms:
        """The lite interpreter since 2.1, in which every file of this torch was loaded; the engine of the INT8 kernels."""
        from packager.protocols import Terms

        precision = "int8" if artifact.quantized and job.recipe.precision == "fp32" else job.recipe.precision
        options = {} if precision == "fp32" else {"quantized_engine": engine_of(job.profile)}
        need = RuntimeNeed(name=self.name, min_version="2.1")
        # Its INT8 kernels have computed wrongly before: what is far from the original is not written by itself.
        refuse = job.recipe.precision == "int8"
        return Terms(need=need, tolerance=_TOLERANCES[precision], session_options=options, refuse_far=refuse)

    def run(self, artifact: Artifact, batches: Sequence[Arrays]) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
        """By the lite interpreter itself, with the kernels of the engine that the model was packed for."""
        from torch.jit.mobile import _load_for_lite_interpreter

        from packager.torch_trace import legacy_quiet

        with legacy_quiet():
            module = _load_for_lite_interpreter(str(artifact.path))
        names = [spec.name for spec in artifact.inputs], [spec.name for spec in artifact.outputs]
        return torch_models.run_module(module, batches, *names)

    def _bytecode(self, job: Lowering) -> int | None:
        """What the user asked for, else what the profile's app needs; None for what this torch writes."""
        asked = job.options.get("bytecode", job.profile.runtime(self.name).options.get("bytecode"))
        if asked is not None and (not isinstance(asked, int) or isinstance(asked, bool)):
            raise ConvertError(f"bytecode {asked!r}", expected="a whole number, 4 to 8", code="bytecode")
        return asked


def engine_of(profile: Profile) -> str:
    """The INT8 kernels for the profile's processor: qnnpack on ARM, x86 on desktops."""
    return "x86" if profile.cpu.arch == "x86_64" else "qnnpack"


def _options(recipe: Recipe, profile: Profile) -> dict[str, Any]:
    options: dict[str, Any] = {"engine": engine_of(profile), "per_channel": recipe.per_channel}
    if recipe.precision == "int8":
        options |= {"method": recipe.method, "scope": recipe.scope or profile.int8.scope}
    if recipe.exclude:
        options["exclude"] = list(recipe.exclude)
    return options


def _check_source(artifact: Artifact, recipe: Recipe) -> None:
    if artifact.quantized and recipe.precision == "int8-dynamic":
        raise ConvertError("the source is already quantised", fix="take --recipe int8", code="already-quantised")
    if recipe.precision == "fp32" or artifact.format == "torch":
        return
    raise ConvertError(
        f"PyTorch quantises the layers of an nn.Module, and a {artifact.format} file has none any more",
        expected="file.py:factory, which returns the nn.Module",
        fix="build from the factory, or take --recipe fp32"
        + (", or --runtime executorch, which quantises exported programs" if artifact.format == "pt2" else ""),
        code="no-module",
    )


def _quantise(program: Program, job: Lowering) -> tuple[Any, list[Finding], list[tuple[str, dict[str, Any]]]]:
    """The module in the recipe's precision, what there is to say, and the steps taken."""
    recipe, engine = job.recipe, engine_of(job.profile)
    if hasattr(program.module, torch_models.QAT_ENGINE):
        return _learned(program, job, engine)
    if torch_models.is_quantized(program.module):
        text = "the source is already quantised: passed through as it is"
        return program.module, [Finding("already-quantised", INFO, text, "")], []
    if recipe.precision == "fp32":
        return program.module, [], []
    made = [(_STEPS[recipe.precision], _options(recipe, job.profile))]
    if recipe.precision == "int8-dynamic":
        from packager.compress.quantize.torch_dynamic import quantize_dynamic

        job.progress("quantising weights")
        dynamic = quantize_dynamic(
            program.module, engine=engine, per_channel=recipe.per_channel, exclude=recipe.exclude
        )
        return dynamic.module, [dynamic.finding()], made
    from packager.compress.quantize.torch_static import quantize_static

    feeds = calibration_feeds(program, job, _CALIBRATE)
    job.progress(f"calibrating on {len(feeds)} samples")
    scoped = dataclasses.replace(recipe, scope=recipe.scope or job.profile.int8.scope)
    static = quantize_static(program.module, program.examples, feeds, scoped, engine)
    doubts = job.calibration.findings() if job.calibration is not None else []
    return static.module, [*doubts, *static.findings], made


def _learned(
    program: Program, job: Lowering, engine: str
) -> tuple[Any, list[Finding], list[tuple[str, dict[str, Any]]]]:
    """INT8 with the ranges of quantisation-aware training."""
    from packager.compress.quantize.torch_dynamic import use_engine
    from packager.compress.quantize.torch_static import convert_prepared
    from packager.torch_trace import legacy_quiet

    use_engine(engine)
    with legacy_quiet():
        static = convert_prepared(program.module, check_feeds(program, job), engine)
    text = "INT8 with the ranges learned in quantisation-aware training"
    finding = Finding("learned-ranges", INFO, text, "")
    return static.module, [finding, *static.findings], [("convert_learned", {"engine": engine})]


def _notes(profile: Profile) -> list[Finding]:
    advice = "the same command with --runtime executorch" if "executorch" in profile.runtimes else ""
    text = ".ptl is a legacy format: PyTorch ended its lite runtime with Android 2.1.0; ExecuTorch is the successor"
    torch = torch_models.need_torch()
    if torch._C._is_xnnpack_enabled():  # noqa: SLF001 - what optimize_for_mobile itself asks
        prepack = "this torch could prepack weights for XNNPACK; they are left plain, which every lite runtime loads"
    else:
        prepack = "this torch is built without XNNPACK: weights are not prepacked for it, and fp32 runs on torch's own kernels"
    return [Finding("legacy-format", INFO, text, advice), Finding("no-xnnpack", INFO, prepack, advice)]
