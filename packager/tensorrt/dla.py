"""DLA, the deep-learning accelerator beside the GPU of Xavier and Orin: `--dla 0`, or `options = { dla = 0 }`
in a profile's [runtimes.tensorrt], gives the model to core 0, and what DLA lacks to the GPU.

Sources: NVIDIA's TensorRT 8 developer guide, "TensorRT and DLA" (also in NVIDIA's technical blog): DLA runs networks in FP16
or INT8 only and does not take explicit quantisation. TensorRT 11.3's guide, "Strongly Typed Networks for DLA": 10.7 was the
last release with DLA before 11.4.1, and from 11 on the precision flags by which it is reached here are gone. So a DLA bundle
is fp16 by flags. Nothing of this has run on hardware.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ContractError, ConvertError
from packager.tensorrt.versions import show

if TYPE_CHECKING:
    from packager.profile import Profile
    from packager.protocols import Lowering
    from packager.recipe import Recipe
    from packager.tensorrt.versions import Limits

_WHERE = "$.runtimes.tensorrt.options.dla"
_LAST = (10, 7)


def core_of(profile: Profile) -> int | None:
    """The core that the profile asks for, or None for the GPU. Raises ContractError for one that the board lacks."""
    core = profile.runtime("tensorrt").options.get("dla")
    if core is None:
        return None
    have = profile.gpu.dla if profile.gpu is not None else 0
    if isinstance(core, bool) or not isinstance(core, int) or not 0 <= core < have:
        raise ContractError(
            f"{_WHERE}: {core!r}",
            where=f"profile {profile.name}",
            expected=f"0 to {have - 1}" if have else "nothing: this board has no DLA",
            fix="leave dla out of the profile: the GPU takes every recipe",
            code="no-dla",
        )
    return core


def with_options(job: Lowering) -> Lowering:
    """The job whose profile says what --dla and --workspace-mb say."""
    told: dict[str, Any] = {}
    if job.options.get("dla") is not None:
        told["dla"] = job.options["dla"]
    if job.options.get("workspace_mb") is not None:
        told["workspace"] = f"{job.options['workspace_mb']} MiB"
    if not told:
        return job
    entry = job.profile.runtime("tensorrt")
    entry = dataclasses.replace(entry, options={**entry.options, **told})
    profile = dataclasses.replace(job.profile, runtimes={**job.profile.runtimes, "tensorrt": entry})
    return dataclasses.replace(job, profile=profile)


def limits_for(profile: Profile, limits: Limits) -> Limits:
    """TensorRT's limits, with types by the builder's flags for DLA. Raises ContractError after the last that has them."""
    if core_of(profile) is None:
        return limits
    if limits.version > _LAST:
        raise ContractError(
            f"{_WHERE}: TensorRT {show(limits.version)} does not build for DLA by precision flags, as edgepack does",
            where=f"profile {profile.name}",
            expected="TensorRT 8.5 to 10.7",
            code="no-dla",
        )
    return dataclasses.replace(limits, strong=False)


def check(profile: Profile, recipe: Recipe) -> None:
    """Raises ConvertError for a recipe that DLA cannot compute in the form that edgepack builds."""
    if core_of(profile) is None or recipe.precision == "fp16":
        return
    why = "DLA computes in FP16 and INT8" if recipe.precision == "fp32" else "DLA's INT8 takes no Q/DQ operators"
    raise ConvertError(
        f"no {recipe.precision} on DLA: {why}",
        where=f"profile {profile.name}: {_WHERE}",
        fix="take --recipe fp16, or leave dla out of the profile",
        code="dla-recipe",
    )
