"""A recipe's steps applied to an artifact: each leaves files and a factory that rebuilds the module from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract import codec
from agent.contract.errors import ConvertError, UsageError
from agent.contract.finding import INFO, WARNING, Finding
from agent.contract.manifest import Step
from packager import torch_models
from packager.artifact import Artifact, digest_files
from packager.compress.training_data import load_batches
from packager.recipe_steps import Budget, DistillStep, FuseStep, PruneStep, TrainingSettings, of_kind

if TYPE_CHECKING:
    from packager.bundle.golden import GoldenVectors
    from packager.protocols import Lowering, Source

_FACTORY = """
from pathlib import Path

import torch

from packager import torch_models
from packager.compress.prune import run

HERE = Path(__file__).parent


def made():
    base = torch_models.call_factory({entry!r})
    examples = torch.load(str(HERE / "examples.pt"), weights_only=True)
    return run.load(base.module, examples, HERE / "state.pt"), examples
"""


@dataclasses.dataclass(frozen=True)
class Applied:
    """The artifact after the steps, and what they bought (measured, so not for the bundle)."""

    artifact: Artifact
    reports: tuple[dict[str, Any], ...] = ()


# What scores modules by a step's budget (the budget, the model's inputs, names of its outputs), and knows what may be lost
# once it has scored the original; it stands on a higher floor (packager.accuracy), and so is given.
Scorer = Callable[[Budget, Sequence[Any], Sequence[str]], Any]


def apply_module_steps(source: Source, artifact: Artifact, job: Lowering, scorer: Scorer) -> Applied:
    """The prune and distill steps of the recipe, in order. Raises ConvertError for a source that cannot take them."""
    reports = []
    steps = of_kind(job.recipe.steps, "prune", "distill")
    if artifact.format == "torch":
        _look_ahead(artifact, steps, job, scorer)
    for index, step in enumerate(steps):
        folder = job.workdir / f"step-{index}-{step.do}"
        folder.mkdir()
        if artifact.format == "onnx" and isinstance(step, PruneStep):
            artifact, report = _prune_onnx(artifact, step, folder)
        else:
            _needs_module(artifact, step.do)
            if isinstance(step, PruneStep):
                artifact, report = _prune(source, artifact, step, job, folder, scorer)
            else:
                artifact, report = _distill(source, artifact, step, job, folder)
        reports.append({"step": step.do, **report})
    return Applied(artifact, tuple(reports))


def _look_ahead(artifact: Artifact, steps: Sequence[Any], job: Lowering, scorer: Scorer) -> None:
    """What every step names is looked up and tried, and the data give a batch: a fault in the last step is told before the
    first has trained for hours. Raises UsageError.
    """
    from packager.compress import distill
    from packager.compress.prune.layers import prunable
    from packager.compress.train import named_loss, own_trainer

    made = torch_models.recall(artifact.entry)
    names = [spec.name for spec in artifact.inputs]
    tried: set[tuple[str, int]] = set()
    for step in steps:
        training = step.training
        if training is not None:
            _checkpoint(training, job, quiet=True)
            named_loss(training.loss)
            if training.loop:
                own_trainer(training.loop)
            if (training.data, training.batch) not in tried:
                tried.add((training.data, training.batch))
                rows = load_batches(training.data, names, batch=training.batch, seed=training.seed)(1)
                if next(iter(rows), None) is None:
                    raise UsageError("the training data is empty", where=training.data, code="empty")
        if isinstance(step, DistillStep):
            taught = torch_models.call_factory(step.teacher)
            examples = torch_models.examples_for(made, job.shapes)
            how = _distillation(step)
            distill.check(made.module, taught.module, examples, how, factory=step.teacher, own=taught.examples)
        else:
            prunable(made.module, step.layers, step.exclude)
            if step.budget is not None:
                scorer(step.budget, artifact.inputs, [spec.name for spec in artifact.outputs])


def _needs_module(artifact: Artifact, what: str) -> None:
    if artifact.format != "torch" or artifact.quantized:
        raise ConvertError(
            f"{what} needs a float nn.Module, and this is {artifact.format}",
            fix="build from file.py:factory"
            + ("; of an ONNX file only weights can be pruned (l1, l1-global)" if what == "prune" else ""),
            code="nothing-to-train",
        )


def _prune_onnx(artifact: Artifact, step: PruneStep, folder: Path) -> tuple[Artifact, dict[str, Any]]:
    from packager.compress.prune.onnx import prune_onnx

    if step.method == "structured" or step.training or step.budget or step.layers or step.exclude:
        raise ConvertError(
            "an ONNX file can be pruned in one shot, by l1 or l1-global over all layers; more needs an nn.Module",
            fix="build from file.py:factory",
            code="nothing-to-train",
        )
    path = folder / "pruned.onnx"
    zeros = prune_onnx(artifact.path, path, step.sparsity, whole_network=step.method == "l1-global")
    digest = digest_files([path])
    options = {"method": step.method, "sparsity": round(zeros, 4), "training": "one shot, no fine-tuning"}
    made = Step("prune", "edgepack", options, digest)
    findings = (*artifact.findings, *_doubts(step, zeros))
    return dataclasses.replace(
        artifact, path=path, companions=(), digest=digest, steps=(*artifact.steps, made), findings=findings
    ), options


def _prune(
    source: Source, artifact: Artifact, step: PruneStep, job: Lowering, folder: Path, scorer: Scorer
) -> tuple[Artifact, dict[str, Any]]:
    from packager.compress.prune.report import report
    from packager.compress.prune.run import FineTuning, PruneOptions, prune, save

    made = torch_models.recall(artifact.entry)
    examples = torch_models.examples_for(made, job.shapes)
    inputs, outputs = ([spec.name for spec in side] for side in (artifact.inputs, artifact.outputs))
    names = [field.name for field in dataclasses.fields(PruneOptions)]
    options = PruneOptions(**{name: getattr(step, name) for name in names})
    tuning = None
    if step.training is not None:
        trainer, batches, loss = _training(step.training, inputs, job, "fine-tuning")
        tuning = FineTuning(trainer, batches, loss)
    score, allowed = None, {}
    if step.budget is not None:
        score = scorer(step.budget, artifact.inputs, outputs)
        job.progress("scoring the original")
        score(made.module)
        allowed = {"max_drop": score.budget.points, "max_drop_relative": score.budget.relative}
    pruned = prune(
        made.module,
        examples,
        options,
        fine_tuning=tuning,
        score=score,
        progress=job.progress,
        **allowed,
    )
    save(pruned, folder / "state.pt")
    job.progress("measuring what pruning bought")
    bought = report(made.module, pruned.module, examples, folder)
    told: dict[str, Any] = {"method": step.method, "share": round(pruned.share, 4)}
    told["training"] = "one shot, no fine-tuning" if tuning is None else f"{len(pruned.curve)} steps, fine-tuned"
    if pruned.attention:
        told["heads"] = ", ".join(f"{name} {before} -> {left}" for name, (before, left) in pruned.attention.items())
    if pruned.stopped:
        told["stopped"] = pruned.stopped
    findings = _doubts(step, pruned.share)
    after = _reopened(source, artifact, examples, folder, job, Step("prune", _tool(step), told, ""), findings)
    return after, {**told, "curve": [list(one) for one in pruned.curve], **bought.document()}


def _tool(step: PruneStep) -> str:
    if step.method != "structured":
        return "torch.nn.utils.prune"
    from importlib import metadata

    return f"torch-pruning {metadata.version('torch-pruning')}"


def _doubts(step: PruneStep, share: float) -> list[Finding]:
    found = []
    if step.method != "structured":
        text = (
            f"{share:.0%} of the weights are zero, and dense kernels multiply zeros, too: smaller when compressed only"
        )
        advice = 'method = "structured" removes whole channels'
        found.append(Finding("mask-without-speed", INFO, text, advice))
    if step.training is None:
        text = "pruned in one shot, no fine-tuning: accuracy is likely lost"
        found.append(Finding("no-fine-tuning", WARNING, text, "give the step training data"))
    return found


def _distill(
    source: Source, artifact: Artifact, step: DistillStep, job: Lowering, folder: Path
) -> tuple[Artifact, dict[str, Any]]:
    import copy

    from packager.compress import distill
    from packager.compress.prune.layers import hold_zeros
    from packager.compress.prune.run import Pruned, save
    from packager.compress.train import own_trainer, say_epochs

    made = torch_models.recall(artifact.entry)
    examples = torch_models.examples_for(made, job.shapes)
    taught = torch_models.call_factory(step.teacher)
    teacher, student = taught.module, copy.deepcopy(made.module)
    hold_zeros(student)
    how = _distillation(step)
    distill.check(student, teacher, examples, how, factory=step.teacher, own=taught.examples)
    names = [spec.name for spec in artifact.inputs]
    batches = load_batches(step.training.data, names, batch=step.training.batch, seed=step.training.seed)
    history: list[float] = []
    if step.training.loop:
        with distill.own_loop(student, teacher, examples, how) as loss:
            own_trainer(step.training.loop)(student, batches, loss)
    else:
        say = say_epochs(job.progress, "distilling")
        history = distill.distill(
            student,
            teacher,
            examples,
            batches,
            how,
            _options(step.training),
            callbacks=[say],
            checkpoint=_checkpoint(step.training, job),
        )
    save(Pruned(student, 0.0, [], fine_tuned=True), folder / "state.pt")
    told = {
        key: value for key, value in codec.encode(step).items() if key not in ("do", "training", "teacher") and value
    }
    after = _reopened(source, artifact, examples, folder, job, Step("distill", "edgepack", told, ""), [])
    return after, {**told, "losses": history}


def _distillation(step: DistillStep) -> Any:
    from packager.compress import distill

    return distill.Distillation(
        distill.Response(step.temperature, step.alpha) if step.response else None,
        tuple(distill.Feature(*pair, step.feature_weight) for pair in step.features.items()),
        tuple(distill.Relation(*pair, step.relation_weight) for pair in step.relations.items()),
        step.training.loss,
    )


def _options(settings: TrainingSettings) -> Any:
    from packager.compress.train import Training

    keys = ("epochs", "learning_rate", "optimizer", "seed", "device")
    return Training(**{key: getattr(settings, key) for key in keys})


def _checkpoint(settings: TrainingSettings, job: Lowering, *, quiet: bool = False) -> Path | None:
    if not settings.checkpoint:
        return None
    path = Path(settings.checkpoint)
    if not path.parent.is_dir():
        raise UsageError("there is no such folder for the checkpoint", where=str(path), code="checkpoint")
    if path.exists() and not quiet:
        job.progress(f"going on from the checkpoint {path}")
    return path


def _training(settings: TrainingSettings, inputs: list[str], job: Lowering, what: str) -> tuple[Any, Any, Any]:
    from packager.compress.train import named_loss, own_trainer, say_epochs, trainer

    batches = load_batches(settings.data, inputs, batch=settings.batch, seed=settings.seed)
    run = (
        own_trainer(settings.loop)
        if settings.loop
        else trainer(_options(settings), [say_epochs(job.progress, what)], _checkpoint(settings, job))
    )
    return run, batches, named_loss(settings.loss)


def _reopened(
    source: Source,
    artifact: Artifact,
    examples: tuple[Any, ...],
    folder: Path,
    job: Lowering,
    step: Step,
    findings: list[Finding],
) -> Artifact:
    """The step's result, read back from its files: between steps everything is a file."""
    from packager.compress.train import weights_digest

    torch = torch_models.need_torch()
    torch.save(examples, str(folder / "examples.pt"))
    code = folder / "made.py"
    code.write_text(_FACTORY.format(entry=artifact.entry), encoding="utf-8")
    names = tuple(spec.name for spec in artifact.outputs)
    opened = source.open(f"{code}:made", {"shapes": job.shapes, "output_names": names})
    done = dataclasses.replace(step, result=weights_digest(torch_models.recall(opened.entry).module))
    return dataclasses.replace(
        opened,
        inputs=artifact.inputs,
        steps=(*artifact.steps, done),
        findings=(*artifact.findings, *findings),
    )


def apply_fusion(artifact: Artifact, job: Lowering, golden: GoldenVectors, most_opset: int, most_ir: int) -> Applied:
    """The recipe's fuse step on an ONNX artifact, its opset settled before. Raises ConvertError when parity fails."""
    from packager.compress.fuse import fuse
    from packager.onnx_lower import prepare
    from packager.onnx_model import load_model, model_inputs, model_outputs, need_onnxruntime

    (step,) = of_kind(job.recipe.steps, "fuse")
    assert isinstance(step, FuseStep)  # noqa: S101 - for the type checker: of_kind says so
    folder = job.workdir / "fuse"
    folder.mkdir()
    ready = prepare(artifact, job.shapes, most_opset, most_ir, folder)
    if ready.quantized:
        raise ConvertError("the source is quantised already: fusion is for floats", code="already-quantised")
    job.progress("fusing")
    done = fuse(
        ready.path,
        folder / "fused.onnx",
        golden.feeds(),
        model_type=step.model_type,
        heads=step.heads,
        hidden=step.hidden,
    )
    model = load_model(done.path)
    options: dict[str, Any] = {"model_type": done.model_type or "none", "fused": done.fused}
    options |= {"heads": done.heads, "hidden": done.hidden} if done.model_type else {}
    digest = digest_files([done.path, *done.companions])
    made = Step("fuse", f"onnxruntime {need_onnxruntime().__version__}", options, digest)
    findings = list(ready.findings)
    if not done.fused:
        text = "no part of a transformer was found to fuse: constants were folded, dead nodes dropped"
        findings.append(Finding("nothing-fused", INFO, text, "leave the step out for this model"))
    after = dataclasses.replace(
        ready,
        path=done.path,
        companions=done.companions,
        digest=digest,
        inputs=model_inputs(model),
        outputs=model_outputs(model),
        steps=(*ready.steps, made),
        findings=tuple(findings),
    )
    return Applied(after, ({"step": "fuse", **done.document()},))
