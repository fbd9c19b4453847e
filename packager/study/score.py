"""Accuracy of bundles on this machine: every runtime that runs here, the same samples for all."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packager.accuracy.dataset import EvalSet, load_eval
from packager.accuracy.evaluate import bundle_model, measure_source, run_lowered
from packager.accuracy.metric import Metric, Score, load_metric
from packager.accuracy.paired import Budget, budget_for, paired_drop, settled
from packager.study.row import Accuracy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from packager.artifact import Artifact


@dataclasses.dataclass(frozen=True)
class Samples:
    """The evaluation set, the metric, what may be lost of it, and what the original makes of it."""

    data: EvalSet
    metric: Metric
    budget: Budget
    original: Score
    outputs: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.data)


def load_samples(
    data: str, metric: str | None, artifact: Artifact, max_drop: float | None = None, relative: float | None = None
) -> Samples:
    """The set in an .npz; without labels the metric is agreement with the original. Raises UsageError."""
    samples = load_eval(data, artifact.inputs)
    chosen = load_metric(metric, samples)
    budget = budget_for(chosen, max_drop, relative, labelled=samples.labels is not None)
    score, outputs = measure_source(artifact, samples, chosen)
    return Samples(samples, chosen, settled(budget, chosen, score), score, outputs)


def accuracy(samples: Samples, bundle: Path, folder: Path) -> Accuracy:
    """The bundle's score beside the original's, with the paired interval of the difference where there is one.

    Raises ConvertError for a runtime that this machine cannot run.
    """
    from agent.contract.archive import BundleReader

    with BundleReader(bundle) as reader:
        manifest = reader.manifest
        reader.extract(folder)
    outputs = run_lowered(bundle_model(manifest, folder), samples.data)
    after = samples.metric.measure(outputs, samples.data.labels, samples.outputs)
    drop = paired_drop(samples.original, after)
    low, high = drop.interval or (None, None)
    return Accuracy(after.score, after.n, drop.points, low, high, drop.percent_per_point)
