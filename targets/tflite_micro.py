"""TFLite Micro on microcontrollers: everything in INT8, checked in TFLite Micro itself, with a verdict before flashing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError
from agent.contract.finding import INFO, WARNING, Finding
from agent.contract.manifest import RuntimeNeed, Tolerance
from packager import tflite_lower
from packager.micro.plain_c import can_write, write_plain_c
from packager.micro.tflm import run_micro
from packager.micro.tflm_sources import tflm_sources
from packager.profile import load_profile, profile_names
from packager.tflite_graph import float_operators, label
from packager.tflite_model import operator_counts, quantization_of, read_model, schema

if TYPE_CHECKING:
    import numpy as np

    from packager.artifact import Artifact
    from packager.bundle.golden import GoldenVectors
    from packager.profile import Profile
    from packager.protocols import Arrays, Lowering, Terms
    from packager.recipe import Recipe

_TOLERANCE = Tolerance(min_cosine=0.98, max_abs=1e-3)
_TIGHT = 0.8  # the runtime's code, the stack and the application need room too


class TfliteMicro:
    """The rules of this runtime."""

    name = "tflite_micro"
    title = "TFLite Micro"
    format = "tflite"
    recipes: Sequence[str] = ("int8",)
    extra = "tflite"
    runner = ""  # nothing of ours runs on a microcontroller: `qemu:` boards are driven by the host

    def __init__(self) -> None:
        self._arenas: dict[str, int] = {}

    def plan(self, artifact: Artifact, job: Lowering) -> list[tuple[str, dict[str, Any]]]:
        """The steps."""
        return [*tflite_lower.plan_steps(artifact, self._recipe(job)), ("check_fit", {"profile": job.profile.name})]

    def lower(self, artifact: Artifact, job: Lowering) -> Artifact:
        """Everything in INT8. Raises ConvertError for what stays in float, is unknown to TFLite Micro, or does not fit."""
        lowered = tflite_lower.lower_tflite(artifact, job, self._recipe(job))
        _refuse_float(lowered)
        job.progress("measuring the arena in TFLite Micro")
        verdict = fit_verdict(self._arena(lowered), lowered.size_bytes, job.profile)
        told = [*lowered.findings, verdict]
        if job.profile.cpu.arch == "xtensa":
            text = "the C sources are generated for Xtensa and not compiled: edgepack has no compiler and no emulator for it"
            told.append(
                Finding(
                    "not-compiled", INFO, text, "edgepack unpack BUNDLE, and build tflm/ within your ESP-IDF project"
                )
            )
        return dataclasses.replace(lowered, findings=tuple(told))

    def terms(self, artifact: Artifact, job: Lowering) -> Terms:
        """The arena, the operators, and C sources beside the model."""
        from packager.protocols import Terms

        model = read_model(artifact.path)
        operators, quantization = operator_counts(model), quantization_of(model)
        arena = self._arena(artifact)
        note = "Generated for Xtensa and not compiled by edgepack." if job.profile.cpu.arch == "xtensa" else ""
        sources = tflm_sources(artifact.path.read_bytes(), operators, arena, quantization, note)
        files = {f"tflm/{name}": content for name, content in sources.items()}
        why = can_write(model)
        plain: dict[str, Any] = {"why_not": why}
        if not why:
            try:
                written, plain = write_plain_c(model)
                files |= {f"plain-c/{name}": content for name, content in written.items()}
            except ConvertError as error:
                plain = {"why_not": f"{error.what} at {error.where}"}
        facts = {
            "operators": dict(sorted(operators.items())),
            "quantization": quantization,
            "arena_bytes": arena,
            "ram_bytes": job.profile.memory.ram_bytes,
            "flash_bytes": job.profile.memory.flash_bytes,
            "plain_c": plain,
        }
        need = RuntimeNeed(name=self.name, min_version="0")
        return Terms(need=need, tolerance=_TOLERANCE, facts=facts, files=files)

    def run(self, artifact: Artifact, batches: Sequence[Arrays]) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
        """In TFLite Micro itself."""
        return iter(run_micro(artifact, batches)[1])

    def fit_golden(self, original: Artifact, lowered: Artifact, golden: GoldenVectors) -> GoldenVectors:
        """Channels last, quantised."""
        return tflite_lower.fit_golden(original, lowered, golden)

    def _recipe(self, job: Lowering) -> Recipe:
        return tflite_lower.settled(job.recipe, "all")

    def _arena(self, artifact: Artifact) -> int:
        if artifact.digest not in self._arenas:
            import numpy as np

            zeros: dict[str, Any] = {
                spec.name: np.zeros([size if isinstance(size, int) else 1 for size in spec.shape], spec.dtype)
                for spec in artifact.inputs
            }
            self._arenas[artifact.digest] = run_micro(artifact, [zeros])[0]
        return self._arenas[artifact.digest]


def _refuse_float(artifact: Artifact) -> None:
    model = read_model(artifact.path)
    left = float_operators(model)
    if not left:
        return
    kinds = (schema().TensorType.FLOAT32, schema().TensorType.FLOAT16)
    named = [
        label(model, graph, op)
        for graph in model.subgraphs
        for op in graph.operators
        if any(index >= 0 and graph.tensors[index].type in kinds for index in op.outputs)
    ]
    raise ConvertError(
        f"microcontrollers run INT8 only, but these operators stay in float: {', '.join(sorted(left))}",
        where="; ".join(named[:5]),
        expected="operators that ai-edge-quantizer has in INT8",
        fix="replace them in the model (ReLU, ReLU6, average pooling and convolutions all have integer forms)",
        code="float-operators",
    )


def fit_verdict(arena: int, model_bytes: int, profile: Profile) -> Finding:
    """How the model fits, as a finding. Raises ConvertError, code "does-not-fit": by how much, and where it would."""
    ram, flash = profile.memory.ram_bytes, profile.memory.flash_bytes
    short = []
    if arena > ram:
        short.append(f"the tensor arena needs {arena:,} bytes of RAM, {arena - ram:,} more than there are")
    if flash and model_bytes > flash:
        short.append(f"the model needs {model_bytes:,} bytes of flash, {model_bytes - flash:,} more than there are")
    if short:
        raise ConvertError(
            f"the model does not fit: {'; '.join(short)}",
            where=f"{profile.title}: {ram:,} bytes of RAM, {flash:,} of flash",
            expected="a model within RAM and flash, with room for the application",
            fix=f"a smaller input or fewer channels in the widest layers; it fits: {', '.join(_roomier(arena, model_bytes))}",
            code="does-not-fit",
        )
    told = f"arena {arena:,} of {ram:,} bytes of RAM ({arena / ram:.0%})"
    if flash:
        told += f", model {model_bytes:,} of {flash:,} bytes of flash ({model_bytes / flash:.0%})"
    tight = arena > _TIGHT * ram or (flash and model_bytes > _TIGHT * flash)
    if tight:
        advice = "the runtime's code, the stack and the application need room too: measure the linked program"
        return Finding("fits-tightly", WARNING, f"hardly fits: {told}", advice)
    return Finding("fits", INFO, f"fits: {told}", "the runtime's code (30 to 100 kB) and the stack come on top")


def _roomier(arena: int, model_bytes: int) -> list[str]:
    found = []
    for name in profile_names():
        profile = load_profile(name)
        memory = profile.memory
        roomy = arena <= _TIGHT * memory.ram_bytes and (not memory.flash or model_bytes <= _TIGHT * memory.flash_bytes)
        if profile.kind == "microcontroller" and roomy:
            found.append(name)
    return found or ["none of the microcontrollers that edgepack knows: take a board with Linux"]
