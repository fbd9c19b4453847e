"""ExecuTorch (`.pte`) with XNNPACK, for Android and Linux: the successor of PyTorch Lite."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError
from agent.contract.finding import INFO, WARNING, Finding
from agent.contract.manifest import RuntimeNeed, Step, Tolerance
from agent.contract.pte import read_pte
from packager import torch_models
from packager.artifact import Artifact, digest_files
from packager.compress.channel_scales import need_scale_per_channel
from packager.torch_layers import module_layers
from packager.torch_program import calibration_feeds, open_program

if TYPE_CHECKING:
    import numpy as np

    from packager.compress.onnx_layers import Layer
    from packager.compress.quantize.executorch_static import Floats
    from packager.executorch_lower import Delegation
    from packager.profile import Profile
    from packager.protocols import Arrays, Draft, Lowering, Terms
    from packager.recipe import Recipe
    from packager.torch_program import Program

_TOLERANCES = {
    "fp32": Tolerance(min_cosine=0.9999, max_abs=1e-4),
    "int8-dynamic": Tolerance(min_cosine=0.98, max_abs=1e-3),
    "int8": Tolerance(min_cosine=0.98, max_abs=1e-3),
}
_STEPS = {"int8-dynamic": "quantize_dynamic", "int8": "quantize_static"}
_CALIBRATE = 200


class Executorch:
    """The rules of this runtime."""

    name = "executorch"
    title = "ExecuTorch"
    format = "torch"
    formats: Sequence[str] = ("torch", "pt2")
    recipes: Sequence[str] = ("fp32", "int8-dynamic", "int8")
    extra = "executorch"

    def plan(self, artifact: Artifact, job: Lowering) -> list[tuple[str, dict[str, Any]]]:
        """The steps."""
        steps: list[tuple[str, dict[str, Any]]] = [] if artifact.format == "pt2" else [("torch_export", {})]
        if job.recipe.precision in _STEPS and not artifact.quantized:
            steps.append((_STEPS[job.recipe.precision], _options(job.recipe)))
        return [*steps, ("lower_to_xnnpack", {}), ("save_pte", {})]

    def lower(self, artifact: Artifact, job: Lowering) -> Artifact:
        """The model as a `.pte` in the recipe's precision. Raises ConvertError, UsageError without data or executorch."""
        from packager import executorch_lower
        from packager.compress.quantize import executorch_static

        executorch_lower.need_executorch()
        program = open_program(artifact, job)
        program, findings, learned = _learned(program)
        path = job.workdir / "model.pte"
        if job.recipe.precision == "int8" and not learned:
            floats = _floats(artifact, program, job)
            module, chosen, told = executorch_static.draft(floats, job.recipe)
            findings += [*_samples(job), *told]
            job.progress("lowering to XNNPACK")
            placed = executorch_static.write(floats, module, chosen, path)
        else:
            job.progress("exporting")
            exported = plain = executorch_lower.export(program)
            dynamic = job.recipe.precision == "int8-dynamic" and not learned
            if dynamic:
                job.progress("quantising weights")
                exported = executorch_lower.quantise_dynamic(exported, program, job.recipe)
            job.progress("lowering to XNNPACK")
            placed = executorch_lower.write(exported, path)
            findings += _dynamic(plain, program, path.stat().st_size, job.recipe) if dynamic else []
        facts = read_pte(path.read_bytes())
        digest = digest_files([path])
        steps = [Step(name, _tool(name), options, "") for name, options in self.plan(artifact, job)[:-1]]
        steps.append(Step("save_pte", _tool("save_pte"), {"schema_version": facts.schema_version}, digest))
        return dataclasses.replace(
            artifact,
            format="pte",
            path=path,
            companions=(),
            digest=digest,
            inputs=program.inputs,
            quantized=job.recipe.precision != "fp32" or learned,
            weights_bytes=None,
            steps=(*artifact.steps, *steps),
            findings=(*artifact.findings, *findings, _placement(placed)),
        )

    def draft(self, artifact: Artifact, job: Lowering) -> Draft:
        """Static INT8 rounded in torch, with the steps of the program that `lower` would write. Raises ConvertError."""
        from packager import executorch_lower
        from packager.compress.quantize import executorch_static
        from packager.protocols import Draft

        executorch_lower.need_executorch()
        program = open_program(artifact, job)
        module, _, _ = executorch_static.draft(_floats(artifact, program, job), job.recipe)
        digest = executorch_static.digest(module)
        name = _STEPS["int8"]
        steps = (*artifact.steps, Step(name, _tool(name), _options(job.recipe), digest))
        stand_in = dataclasses.replace(artifact, digest=digest, inputs=program.inputs, quantized=True, steps=steps)
        return Draft(stand_in, lambda feeds: executorch_static.run(module, stand_in, feeds))

    def terms(self, artifact: Artifact, job: Lowering) -> Terms:
        """The release that wrote the program, or a newer one: a runtime reads what its own and older exporters wrote."""
        from importlib import metadata

        from packager.protocols import Terms

        oldest = ".".join(metadata.version("executorch").split(".")[:2])
        need = RuntimeNeed(name=self.name, min_version=oldest)
        precision = "int8" if artifact.quantized and job.recipe.precision == "fp32" else job.recipe.precision
        return Terms(need=need, tolerance=_TOLERANCES[precision])

    def layers(self, artifact: Artifact, job: Lowering) -> list[Layer]:
        """Submodules by name; none of a program that was exported elsewhere, whose modules are gone."""
        program = open_program(artifact, job)
        return module_layers(program.module, program.examples) if program.kind == "torch" else []

    def levers(self, recipe: Recipe, profile: Profile) -> list[tuple[str, dict[str, Any]]]:
        """Granularity, ranges, what leaves every layer in INT8; activations have a zero point always."""
        del profile
        rows: list[tuple[str, dict[str, Any]]] = [
            ("per channel", {"per_channel": True}),
            ("bias correction", {"bias_correction": True}),
            # Smoothed channels make weights wider, whose rounding shifts what layers give: never without the correction.
            ("smoothed activations", {"smooth": True, "bias_correction": True, "per_channel": True}),
            ("clipped ranges (MSE)", {"method": "mse"}),
            ("clipped ranges (percentile)", {"method": "percentile", "percentile": 99.99}),
            ("cross-layer equalisation", {"equalize": True}),
            ("only what multiplies", {"scope": "compute"}),
        ]
        return [(words, change) for words, change in rows if dataclasses.replace(recipe, **change) != recipe]

    def int8_layers(self, lowered: Artifact, layers: Sequence[Layer]) -> set[str]:
        """All but those that the quantising step was told to leave, and convolutions where it is the dynamic one."""
        steps = [step for step in lowered.steps if step.name in _STEPS.values()]
        if any(step.name == _STEPS["int8-dynamic"] for step in steps):
            layers = [one for one in layers if not one.operator.startswith("Conv")]
        left = {name for step in steps for name in step.options.get("exclude", ())}
        return {one.name for one in layers if steps and not any(_within(one.name, name) for name in left)}

    def run(self, artifact: Artifact, batches: Sequence[Arrays]) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
        """By the runtime itself, with XNNPACK's kernels."""
        torch = torch_models.need_torch()
        from packager import executorch_lower

        with executorch_lower.quiet():
            from executorch.runtime import Runtime

            try:
                program = Runtime.get().load_program(artifact.path)
                method = program.load_method("forward")
            except RuntimeError as error:
                raise ConvertError(
                    f"ExecuTorch wrote a program that it does not load: {str(error)[:300]}",
                    where="XNNPACK says on stderr which of its nodes it refuses",
                    fix="rewrite that operator, exclude it in a recipe file, or take --runtime pytorch_lite; report it",
                    code="not-loadable",
                ) from error
        for batch in batches:
            found = method.execute([torch.from_numpy(batch[spec.name].copy()) for spec in artifact.inputs])
            names = [spec.name for spec in artifact.outputs]
            yield dict(zip(names, [one.numpy().copy() for one in found], strict=True))


def _within(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def _learned(program: Program) -> tuple[Program, list[Finding], bool]:
    """The program with explicit Q/DQ where its ranges were learned in training."""
    if not hasattr(program.module, torch_models.QAT_ENGINE):
        return program, [], False
    from packager.compress.qdq import as_qdq

    text = "INT8 with the ranges learned in quantisation-aware training"
    return (
        dataclasses.replace(program, module=as_qdq(program.module)),
        [Finding("learned-ranges", INFO, text, "")],
        True,
    )


def _floats(artifact: Artifact, program: Program, job: Lowering) -> Floats:
    """What all recipes of a search share; made anew for what is lowered once."""
    from packager import executorch_lower
    from packager.compress.quantize import executorch_static

    feeds = calibration_feeds(program, job, _CALIBRATE)
    assert job.calibration is not None  # noqa: S101 - refused a line above

    def made() -> Floats:
        job.progress("exporting")
        exported = executorch_lower.export(program)
        job.progress(f"calibrating on {len(feeds)} samples")
        return executorch_static.Floats(exported, program, feeds)

    if job.cache is None:
        return made()
    key = (artifact.digest, artifact.entry, job.calibration.record().digest, str(program.inputs))
    return executorch_static.kept(key, made)


def _samples(job: Lowering) -> list[Finding]:
    return [] if job.calibration is None else job.calibration.findings()


def _dynamic(exported: Any, program: Program, size: int, recipe: Recipe) -> list[Finding]:
    from packager.compress.quantize.torch_dynamic import state_bytes
    from packager.executorch_quantizer import tell_dynamic

    return tell_dynamic(exported, recipe, state_bytes(program.module), size)


def _options(recipe: Recipe) -> dict[str, Any]:
    need_scale_per_channel(recipe)
    options: dict[str, Any] = {"per_channel": recipe.per_channel}
    if recipe.scope and recipe.precision == "int8":
        options["scope"] = recipe.scope
    if recipe.precision == "int8" and recipe.method != "minmax":
        options["method"] = recipe.method
        if recipe.method == "percentile":
            options["percentile"] = recipe.percentile
    options |= {key: True for key in ("equalize", "smooth", "bias_correction") if getattr(recipe, key)}
    if recipe.exclude:
        options["exclude"] = list(recipe.exclude)
    return options


def _tool(step: str) -> str:
    from importlib import metadata

    name = {
        "torch_export": "torch",
        "quantize_static": "torchao",
        "quantize_dynamic": "torchao",
        "train_quantised": "torch",
    }.get(step, "executorch")
    return f"{name} {metadata.version(name).partition('+')[0]}"


def _placement(told: Delegation) -> Finding:
    left = sum(told.left.values())
    names = ", ".join(f"{count} {name}" for name, count in sorted(told.left.items()))
    text = f"XNNPACK computes {told.delegated} operators" + (f"; the portable kernels {left}: {names}" if left else "")
    if not told.delegated:
        return Finding(
            "not-delegated",
            WARNING,
            f"XNNPACK takes nothing of this model: {names}",
            "measure beside --runtime pytorch_lite",
        )
    return Finding("delegation", INFO, text, "portable kernels are slow: rewrite what stands out" if left else "")
