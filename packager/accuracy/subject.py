"""What a search turns and measures: one model for one target, lowered by recipe after recipe, scored on this machine."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packager.accuracy.dataset import EvalSet
from packager.accuracy.evaluate import Runnable, exact_needed, measure_source, run_lowered, run_source
from packager.protocols import Drafts

if TYPE_CHECKING:
    import numpy as np

    from packager.accuracy.metric import Metric, Score
    from packager.artifact import Artifact
    from packager.calibration import CalibrationData
    from packager.protocols import Draft, Lowering, Target
    from packager.recipe import Recipe

    Array = np.ndarray[Any, Any]

PROBES = 32
_LEAST_NOISE = 1e-12


@dataclasses.dataclass(frozen=True)
class Lowered:
    """A candidate: its recipe, its model, and how the host runs it; or a draft of it, which has noise only."""

    recipe: Recipe
    artifact: Artifact
    model: Runnable
    draft: Draft | None = None


class Subject:
    """`original` is the source, `ready` the artifact that the target lowers; `job.cache` keeps what recipes share."""

    def __init__(self, original: Artifact, ready: Artifact, target: Target, job: Lowering) -> None:
        self.original, self.ready, self.target, self.job = original, ready, target, job
        self.probes = PROBES
        self._count = itertools.count()
        self._probes: dict[int, tuple[EvalSet, dict[str, Array]]] = {}

    def lower(self, recipe: Recipe) -> Lowered:
        """The model by this recipe, in a folder of its own. Raises ConvertError where the recipe breaks the quantiser."""
        return self.wrap(recipe, self.target.lower(self.ready, self._job(recipe)))

    def draft(self, recipe: Recipe) -> Lowered:
        """What noise is measured on: a stand-in with the model's integers where the target makes one sooner, else the model.
        Raises ConvertError as `lower` does.
        """
        if not isinstance(self.target, Drafts):
            return self.lower(recipe)
        made = self.target.draft(self.ready, self._job(recipe))
        return Lowered(recipe, made.artifact, Runnable(made.artifact, self.target.name), made)

    def _job(self, recipe: Recipe) -> Lowering:
        place = self.job.workdir / f"candidate-{next(self._count)}"
        place.mkdir()
        return dataclasses.replace(self.job, recipe=recipe, workdir=place, progress=lambda _: None)

    def wrap(self, recipe: Recipe, artifact: Artifact) -> Lowered:
        """A model that has been lowered already."""
        terms = self.target.terms(artifact, dataclasses.replace(self.job, recipe=recipe))
        exact = self.target.name == "onnxruntime" and artifact.quantized and exact_needed(artifact.path)
        scales = terms.facts.get("quantization") or {}
        return Lowered(recipe, artifact, Runnable(artifact, self.target.name, terms.session_options, scales, exact))

    def outputs(self, lowered: Lowered, data: EvalSet) -> dict[str, Array]:
        """Stacked, under the original's names."""
        draft = lowered.draft
        found = run_lowered(lowered.model, data) if draft is None else data.stack(draft.run(data.feeds()))
        names = [spec.name for spec in self.original.outputs]
        return dict(zip(names, found.values(), strict=True))

    def probe(self, most: int | None = None) -> tuple[EvalSet, dict[str, Array]]:
        """A few calibration samples and the original's outputs on them: what sensitivity is measured on."""
        count = min(self.probes, most or self.probes)
        if count not in self._probes:
            data = probe_set(self.job.calibration, count)
            self._probes[count] = data, run_source(self.original, data)
        return self._probes[count]

    def noise(self, lowered: Lowered, most: int | None = None) -> tuple[float, dict[str, Array]]:
        """The noise that quantisation leaves in the outputs, as a share of the signal; and that of each output band.
        `most` samples at most.
        """
        data, wanted = self.probe(most)
        return noise_of(wanted, self.outputs(lowered, data))


def probe_set(calibration: CalibrationData | None, most: int) -> EvalSet:
    """Some calibration samples as an evaluation set without labels, evenly spread."""
    assert calibration is not None  # noqa: S101 - static INT8 was refused without
    count = calibration.samples
    picks = [index * count // min(most, count) for index in range(min(most, count))]
    arrays = {name: array[picks] for name, array in calibration.arrays.items()}
    return EvalSet(arrays, None, tuple(calibration.specs), "calibration data")


def noise_of(wanted: dict[str, Array], found: dict[str, Array]) -> tuple[float, dict[str, Array]]:
    """The share of noise in the outputs (mean over them; of integers the share that changed), and of each band of float ones:
    of the last axis, for maps of channels (samples, channels, height, width) of the second.
    """
    import numpy as np

    total, bands = [], {}
    for name, want in wanted.items():
        if want.dtype.kind != "f":
            total.append(float((want != found[name]).mean()))
            continue
        truth: Array = want.astype(np.float64)
        error: Array = np.nan_to_num(found[name].astype(np.float64) - truth, nan=1e30)
        axis = 1 if truth.ndim == 4 else truth.ndim - 1  # noqa: PLR2004 - a map of channels
        rest = tuple(place for place in range(truth.ndim) if place != axis)
        power = (truth**2).sum(axis=rest)
        lost = (error**2).sum(axis=rest)
        bands[name] = lost / np.maximum(power, _LEAST_NOISE * max(float(power.sum()), _LEAST_NOISE))
        total.append(float(lost.sum()) / max(float(power.sum()), _LEAST_NOISE))
    return (sum(total) / len(total) if total else 0.0), bands


def decibels(noise: float) -> float:
    """The signal's power over the noise's, in dB; at most 120, which is no noise at all."""
    return -10 * math.log10(min(max(noise, _LEAST_NOISE), 1e30))


def original_score(artifact: Artifact, data: EvalSet, metric: Metric) -> tuple[Score, dict[str, Array]]:
    """The original's score, and its outputs for metrics that compare with them."""
    return measure_source(artifact, data, metric)


def folder_for(name: str) -> Path:
    """The folder in the user's cache in which a search keeps what it measured, made."""
    import platformdirs

    path = platformdirs.user_cache_path("edgepack") / "search" / name
    path.mkdir(parents=True, exist_ok=True)
    return path
