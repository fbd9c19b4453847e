"""The analysis of a model: what INT8 costs as a whole, and what each layer costs alone."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError, UsageError, nearest
from packager import registry
from packager.accuracy.dataset import EvalSet, load_eval
from packager.accuracy.metric import Metric, load_metric
from packager.accuracy.paired import POINT, paired_drop
from packager.accuracy.sensitivity import Sensitivity, measure_layer, worst_band
from packager.accuracy.subject import Subject, decibels, original_score
from packager.calibration import load_calibration
from packager.compress.onnx_layers import share_of
from packager.plan import choose_runtime, make_plan
from packager.profile import load_profile
from packager.protocols import Lowering, Tunable
from packager.recipe import load_recipe
from packager.shapes import Shape, apply_shapes

if TYPE_CHECKING:
    from packager.artifact import Artifact
    from packager.compress.onnx_layers import Layer

DROP_SAMPLES = 256


@dataclasses.dataclass(frozen=True)
class Analysis:
    """`layers` worst first; `whole` the model with everything in INT8. `metric` is empty without an evaluation set.

    Drops are in `unit`: "points", or for an error (mse) "score", as it is: a point is 0.01 of what lies between 0 and 1.
    """

    layers: list[Sensitivity]
    whole: dict[str, Any]
    metric: str
    n: int
    unit: str = "points"

    def document(self) -> dict[str, Any]:
        """What `edgepack analyze --json` prints."""
        return {
            "layers": [one.document() for one in self.layers],
            "whole": self.whole,
            "metric": self.metric or None,
            "n": self.n,
            "drop_unit": self.unit,
        }


def analyze(
    model: str,
    calibration: str,
    *,
    target: str,
    runtime: str | None = None,
    recipe: str | None = None,
    data: str | None = None,
    metric: str | None = None,
    shapes: Mapping[str, Shape] | None = None,
    only: tuple[str, ...] = (),
    progress: Callable[[str], None] = lambda _: None,
) -> Analysis:
    """Quantises each layer alone (`only` those named) and compares with the original, on calibration samples and on `data`.

    Raises UsageError, or ConvertError for a target that quantises no single layers.
    """
    with tempfile.TemporaryDirectory(prefix="edgepack-analyze-") as place:
        subject = _subject(model, calibration, target, runtime, recipe, dict(shapes or {}), Path(place), progress)
        job, tuned = subject.job, subject.target
        if not isinstance(tuned, Tunable):
            raise ConvertError(
                f"{tuned.title} quantises whole models: there are no layers to analyse",
                fix="--runtime onnxruntime analyses the same network",
                code="no-layers",
            )
        progress("listing the layers")
        layers = tuned.layers(subject.ready, job)
        chosen = _chosen(layers, only)
        drop, told, n, unit = None, "", 0, "points"
        if data is not None:
            samples = load_eval(data, subject.original.inputs)
            scale = load_metric(metric, samples)
            drop, n = _scorer(subject, samples, scale)
            told, unit = scale.name, "points" if scale.bounded else "score"
        progress("quantising everything")
        lowered = subject.lower(job.recipe)
        noise, bands = subject.noise(lowered)
        band, share = worst_band(bands)
        whole = {
            "sqnr_db": round(decibels(noise), 2),
            "worst_band": band,
            "worst_band_sqnr_db": round(decibels(share), 2),
            "drop": None if drop is None else drop(lowered),
            "int8_share": share_of(layers, tuned.int8_layers(lowered.artifact, layers)).document(),
        }
        rows = []
        for index, layer in enumerate(chosen, 1):
            progress(f"layer {index} of {len(chosen)}: {layer.name}")
            rows.append(measure_layer(subject, job.recipe, layer, layers, drop))
        return Analysis(sorted(rows, key=lambda one: -one.noise), whole, told, n, unit)


def _subject(
    model: str,
    calibration: str,
    target: str,
    runtime: str | None,
    recipe: str | None,
    shapes: dict[str, Shape],
    workdir: Path,
    progress: Callable[[str], None],
) -> Subject:
    profile = load_profile(target)
    settled = load_recipe(recipe or "int8")
    if not settled.needs_calibration:
        raise UsageError(
            f"the recipe {settled.name!r} quantises nothing statically", fix="--recipe int8", code="not-int8"
        )
    found = next((one for one in registry.sources() if one.accepts(model)), None)
    if found is None or (not Path(model.rpartition(":")[0] or model).exists() and not Path(model).exists()):
        raise UsageError("there is no such model", where=model, code="no-model")
    progress("reading the model")
    artifact = found.open(model, {"shapes": shapes, "output_names": ()})
    artifact = dataclasses.replace(artifact, inputs=tuple(apply_shapes(shapes, artifact.inputs)))
    job = Lowering(recipe=settled, profile=profile, workdir=workdir, shapes=shapes, progress=progress)
    plan = make_plan(artifact, job, choose_runtime(profile, runtime), calibrated=True)
    if artifact.quantized:
        raise ConvertError(
            "the model is quantised already", fix="analyse the float model it came from", code="already-quantised"
        )
    cache = workdir / "cache"
    cache.mkdir()
    job = dataclasses.replace(job, calibration=load_calibration(calibration, artifact.inputs), cache=cache)
    ready: Artifact = artifact
    for edge in plan.conversions:
        progress(f"converting {edge.source} to {edge.result}")
        ready = edge.convert(ready, {"shapes": shapes, "free_dims": {}, "layout": "", "progress": progress}, workdir)
    return Subject(artifact, ready, plan.target, job)


def _chosen(layers: list[Layer], only: tuple[str, ...]) -> list[Layer]:
    names = [one.name for one in layers]
    for name in only:
        if name not in names:
            near = nearest(name, names)
            raise UsageError(
                f"there is no layer {name!r}" + (f" (did you mean {near!r}?)" if near else ""),
                expected="one of: " + ", ".join(names[:20]) + (" ..." if len(names) > 20 else ""),  # noqa: PLR2004
                code="unknown-layer",
            )
    return [one for one in layers if not only or one.name in only]


def _scorer(subject: Subject, samples: EvalSet, scale: Metric) -> tuple[Callable[[Any], float], int]:
    """A function that tells what a candidate loses; on some of the samples where the metric is their mean."""
    before, reference = original_score(subject.original, samples, scale)
    if before.rows is not None and len(samples) > DROP_SAMPLES:
        picks = [index * len(samples) // DROP_SAMPLES for index in range(DROP_SAMPLES)]
        samples = samples.part(picks)
        reference = {name: value[picks] for name, value in reference.items()}
        before = scale.measure(reference, samples.labels, reference)

    def drop(lowered: Any) -> float:
        after = scale.measure(subject.outputs(lowered, samples), samples.labels, reference)
        points = paired_drop(before, after).points
        return points if scale.bounded else points * POINT

    return drop, len(samples)
