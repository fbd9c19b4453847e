"""TFLite (LiteRT) on phones and Linux boards: fp32, fp16, dynamic INT8, full INT8 and 16x8."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from agent.contract.manifest import RuntimeNeed, Tolerance
from packager import tflite_lower
from packager.android_model import asked_labels, least_runtime, with_metadata
from packager.android_note import integration_note
from packager.tflite_model import need, operator_counts, peek_model, quantization_of, schema
from packager.tflite_run import run_tflite

if TYPE_CHECKING:
    import numpy as np

    from packager.artifact import Artifact
    from packager.bundle.golden import GoldenVectors
    from packager.compress.onnx_layers import Layer
    from packager.profile import Profile
    from packager.protocols import Arrays, Lowering, Terms
    from packager.recipe import Recipe

# As for ONNX Runtime: floats differ by rounding, quantised networks that keep their accuracy stay above 0.98.
_TOLERANCES = {
    "fp32": Tolerance(min_cosine=0.9999, max_abs=1e-4),
    "fp16": Tolerance(min_cosine=0.999, max_abs=1e-2),
    "int8-dynamic": Tolerance(min_cosine=0.98, max_abs=1e-3),
    "int8": Tolerance(min_cosine=0.98, max_abs=1e-3),
    "int16x8": Tolerance(min_cosine=0.999, max_abs=1e-3),
}


_PHONE = "android"


class Tflite:
    """The rules of this runtime."""

    name = "tflite"
    title = "TFLite"
    format = "tflite"
    recipes: Sequence[str] = tuple(_TOLERANCES)
    extra = "tflite"
    options = ("labels", "min_runtime")

    def plan(self, artifact: Artifact, job: Lowering) -> list[tuple[str, dict[str, Any]]]:
        """The steps, scope and types chosen."""
        steps = tflite_lower.plan_steps(artifact, self._recipe(job))
        if job.profile.kind != _PHONE:
            return steps
        asked_labels(artifact, job)
        return [*steps, ("write_metadata", {})]

    def import_ahead(self, recipe: Recipe) -> None:
        """The reader of flatbuffers and, where it will be used, the quantiser."""
        schema()
        if recipe.precision != "fp32":
            need("ai_edge_quantizer.quantizer")

    def lower(self, artifact: Artifact, job: Lowering) -> Artifact:
        """The model in the recipe's precision; for phones with metadata. Raises ConvertError or UsageError."""
        lowered = tflite_lower.lower_tflite(artifact, job, self._recipe(job))
        least_runtime(lowered, self._asked(job))
        return with_metadata(lowered, artifact, job) if job.profile.kind == _PHONE else lowered

    def terms(self, artifact: Artifact, job: Lowering) -> Terms:
        """The LiteRT asked for, else the oldest that runs the file's operators."""
        from packager.protocols import Terms

        model = peek_model(artifact.path)
        quantization = quantization_of(model)
        facts = {"operators": dict(sorted(operator_counts(model).items())), "quantization": quantization}
        least = least_runtime(artifact, self._asked(job))
        files = {}
        if job.profile.kind == _PHONE:
            labels = asked_labels(artifact, job)
            note = integration_note(artifact, quantization, least, job.preprocessing, labels.output if labels else "")
            files["INTEGRATION.md"] = note.encode()
        need = RuntimeNeed(name=self.name, min_version=least)
        return Terms(need=need, tolerance=_TOLERANCES[job.recipe.precision], facts=facts, files=files)

    def run(self, artifact: Artifact, batches: Sequence[Arrays]) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
        """LiteRT's own kernels without delegates; quantised outputs as real numbers."""
        inputs, outputs = ([spec.name for spec in side] for side in (artifact.inputs, artifact.outputs))
        return run_tflite(artifact.path, batches, inputs, outputs)

    def fit_golden(self, original: Artifact, lowered: Artifact, golden: GoldenVectors) -> GoldenVectors:
        """Channels last and quantised where the lowered model is."""
        return tflite_lower.fit_golden(original, lowered, golden)

    def layers(self, artifact: Artifact, job: Lowering) -> list[Layer]:
        """Of the graph as the quantiser sees it."""
        return tflite_lower.layers(artifact, job)

    def levers(self, recipe: Recipe, profile: Profile) -> list[tuple[str, dict[str, Any]]]:
        """Scope, granularity and the model's ends; then ranges, scaled channels and biases."""
        rows: list[tuple[str, dict[str, Any]]] = []
        if (recipe.scope or profile.int8.scope) == "all":
            rows.append(("the operators that multiply only", {"scope": "compute"}))
        if not recipe.io:  # the user left it open; 8 bits are few for a sound
            rows.append(("floats in and out", {"io": "float"}))
        return rows + tflite_lower.levers(recipe)

    def int8_layers(self, lowered: Artifact, layers: Sequence[Layer]) -> set[str]:
        """By the types of the operators' tensors."""
        return tflite_lower.int8_names(lowered, layers)

    def _asked(self, job: Lowering) -> str:
        """The oldest LiteRT that the user, else the profile asks for; empty for none."""
        return str(job.options.get("min_runtime") or job.profile.runtime(self.name).options.get("min_runtime", ""))

    def _recipe(self, job: Lowering) -> Recipe:
        return tflite_lower.settled(job.recipe, job.profile.int8.scope)
