"""The plan: pure; what will be done to a model for a profile, before it is done. It is what --dry-run prints."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError, UsageError
from packager import registry
from packager.protocols import Warms

if TYPE_CHECKING:
    from packager.artifact import Artifact
    from packager.profile import Profile
    from packager.protocols import Converter, Lowering, Target
    from packager.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Plan:
    """`steps` are names and options in the order they will run."""

    target: Target
    conversions: tuple[Converter, ...]
    steps: tuple[tuple[str, dict[str, Any]], ...]


def choose_runtime(profile: Profile, asked: str | None) -> str:
    """The runtime to build for. Raises UsageError for one that the profile lacks, ConvertError for one not yet there."""
    name = asked or profile.default.runtime
    if asked:
        profile.runtime(asked)
    if name not in registry.target_names():
        here = [one for one in profile.runtimes if one in registry.target_names()]
        raise ConvertError(
            f"edgepack cannot build for the runtime {name!r} yet",
            where=f"profile {profile.name}",
            expected=f"a runtime that this version has: {', '.join(registry.target_names())}",
            fix=f"take --runtime {here[0]}" if here else "this profile waits for a later version of edgepack",
            code="runtime-not-yet",
        )
    return name


def warm_up(source: str, runtime: str) -> None:
    """Lets the converters from this format to this runtime start, while the model is still being read."""
    for edge in registry.path_to(source, registry.target(runtime)) or []:
        if isinstance(edge, Warms):
            edge.warm()


def make_plan(artifact: Artifact, job: Lowering, runtime: str, *, calibrated: bool) -> Plan:
    """The steps from the artifact to the profile's runtime.

    Raises ConvertError when the source does not reach the runtime or it has no such recipe, UsageError when INT8 lacks
    calibration data.
    """
    target = registry.target(runtime)
    conversions = registry.path_to(artifact.format, target)
    if conversions is None:
        others = registry.reachable(artifact.format)
        raise ConvertError(
            f"{target.title} cannot be made from a model of the format {artifact.format}",
            expected=f"a source that leads to {target.format}",
            fix=f"possible from {artifact.format}: {', '.join(others) or 'nothing'}",
            code="no-path",
        )
    check_recipe(target, job.recipe)
    _check_options(target, job)
    if job.ranges and not getattr(target, "ranges", False):
        raise UsageError(
            f"{target.title} builds for one shape, not for a range",
            expected="--shape NAME=1x3x224x224, a free dimension by a name (--shape NAME=batchx3x224x224)",
            code="no-ranges",
        )
    if job.recipe.needs_calibration and not calibrated and not artifact.quantized:
        raise missing_calibration(job.profile, job.recipe)
    steps: list[tuple[str, dict[str, Any]]] = [(f"{edge.result}_from_{edge.source}", {}) for edge in conversions]
    _check_steps(target, artifact, job.recipe)
    if job.recipe.qat:
        steps.insert(0, ("train_quantised", {"function": job.recipe.qat.rpartition(":")[2]}))
    before = [step for step in job.recipe.steps if step["do"] in ("prune", "distill")]
    steps[:0] = [(step["do"], _told(step)) for step in before]
    steps += [("fuse", _told(step)) for step in job.recipe.steps if step["do"] == "fuse"]
    steps += target.plan(artifact, job)
    return Plan(target=target, conversions=tuple(conversions), steps=tuple(steps))


def _told(step: Mapping[str, Any]) -> dict[str, Any]:
    """What --dry-run says of a step: what differs from nothing."""
    return {key: value for key, value in step.items() if key != "do" and value not in (None, "", [], {})}


def _check_steps(target: Target, artifact: Artifact, recipe: Recipe) -> None:
    """Raises ConvertError for steps that this source or this runtime does not take."""
    kinds = [step["do"] for step in recipe.steps]
    if "fuse" in kinds and not getattr(target, "fuses", False):
        raise ConvertError(
            f"fused operators are ONNX Runtime's own, and {target.title} does not know them",
            fix="leave the fuse step out, or take --runtime onnxruntime",
            code="fuse-runtime",
        )
    trained = "distill" in kinds or any(step["do"] == "prune" for step in recipe.steps if artifact.format != "onnx")
    if trained and (artifact.format != "torch" or artifact.quantized):
        raise ConvertError(
            f"the recipe {recipe.name} changes an nn.Module, and this is {artifact.format}"
            + (" (quantised)" if artifact.quantized else ""),
            fix="build from file.py:factory",
            code="nothing-to-train",
        )


def check_recipe(target: Target, recipe: Recipe) -> None:
    """Raises ConvertError when the target has no such precision."""
    if recipe.precision not in target.recipes:
        raise ConvertError(
            f"{target.title} has no recipe of the precision {recipe.precision!r}",
            expected=f"one of: {', '.join(target.recipes)}",
            code="no-recipe",
        )


def _to_be_trained(artifact: Artifact, recipe: Recipe) -> Artifact:
    """The artifact as training will leave it. Raises ConvertError for one that has nothing to train."""
    if artifact.format != "torch" or artifact.quantized:
        raise ConvertError(
            f"quantisation-aware training needs a float nn.Module, and a {artifact.format} file is none"
            if artifact.format != "torch"
            else "the module has been trained with quantisation already",
            where=f"recipe {recipe.name}: qat",
            fix="build from file.py:factory" if artifact.format != "torch" else "take --recipe int8",
            code="nothing-to-train",
        )
    return dataclasses.replace(artifact, quantized=True)


def _check_options(target: Target, job: Lowering) -> None:
    """Raises UsageError for an option of another target."""
    known = getattr(target, "options", ())
    for key in job.options:
        if key not in known:
            raise UsageError(
                f"{target.title} takes no option {key!r}",
                expected=f"one of: {', '.join(known)}" if known else "none",
                code="target-option",
            )


def missing_calibration(profile: Profile, recipe: Recipe) -> UsageError:
    """INT8 without data: both ways out."""
    return UsageError(
        f"the recipe {recipe.name!r} needs calibration data",
        where=f"profile {profile.name}",
        expected="--calibration FILE.npz (arrays by input name, first axis = samples), a folder, file.py:function",
        fix="give --calibration DATA, or build without INT8: --recipe fp32 (or fp16); "
        "--calibration random measures speed and size only",
        code="no-calibration",
    )
