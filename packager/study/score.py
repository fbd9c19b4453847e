"""Accuracy of bundles on this machine: every runtime that runs here, the same samples for all."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.errors import UsageError, unknown_name
from packager import torch_models
from packager.calibration import load_numpy
from packager.compress.scoring import METRICS, plain_score
from packager.study.row import Accuracy

if TYPE_CHECKING:
    from packager.artifact import Artifact
    from packager.protocols import Source

LABELS = "labels"
ALL_METRICS = (*METRICS, "agreement")
_COUNTED = ("top1", "top5", "agreement")
_SURE = 1.96  # standard errors of a 95 % interval


@dataclasses.dataclass(frozen=True)
class Samples:
    """The evaluation set: inputs by name, labels or None, the metric, and what the original makes of the inputs."""

    inputs: Mapping[str, Any]
    labels: Any
    metric: str
    original: Mapping[str, Any]

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))


def load_samples(data: str, metric: str | None, source: Source, artifact: Artifact) -> Samples:
    """The set in an .npz; without labels the metric is agreement with the original. Raises UsageError."""
    import numpy as np

    arrays = load_numpy(Path(data))
    if not isinstance(arrays, dict):
        raise UsageError("a single array", where=data, expected="an .npz with one array per input", code="not-npz")
    names = [spec.name for spec in artifact.inputs]
    for name in arrays:
        if name not in (*names, LABELS):
            raise unknown_name("input in the evaluation data", name, [*names, LABELS])
    for name in names:
        if name not in arrays:
            raise UsageError(f"the evaluation data lacks the input {name!r}", where=data, code="missing-key")
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1 or not min(counts.values()):
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise UsageError(f"the arrays differ in length or are empty: {told}", where=data, code="ragged")
    labels = arrays.get(LABELS)
    chosen = metric or ("top1" if labels is not None else "agreement")
    if chosen not in ALL_METRICS and torch_models.split_factory(chosen) is None:
        raise unknown_name("metric", chosen, ALL_METRICS, fix="name one of these, or file.py:score")
    if labels is None and chosen in METRICS:
        raise UsageError(f"the metric {chosen} needs `labels`", where=data, fix="--metric agreement", code="no-labels")
    inputs = {name: arrays[name] for name in names}
    feeds = [
        {name: array[index : index + 1] for name, array in inputs.items()} for index in range(len(inputs[names[0]]))
    ]
    rows = list(source.run(artifact, feeds))
    return Samples(inputs, labels, chosen, {name: np.concatenate([row[name] for row in rows]) for name in rows[0]})


def outputs_of(bundle: Path, samples: Samples, original: Artifact, folder: Path) -> dict[str, Any]:
    """What the bundle's model makes of the samples on this machine, as the original's outputs look."""
    import numpy as np

    from agent.contract.archive import BundleReader
    from packager import evaluate, registry
    from packager.artifact import Artifact
    from packager.bundle.golden import GoldenVectors
    from packager.protocols import FitsGolden

    with BundleReader(bundle) as reader:
        manifest = reader.manifest
        if manifest.runtime.name == "onnxruntime":
            return evaluate.run_bundle(bundle, samples.inputs)
        reader.extract(folder)
    target = registry.target(manifest.runtime.name)
    lowered = Artifact(
        format=target.format,
        path=folder.joinpath(*manifest.model.split("/")),
        digest="",
        inputs=tuple(manifest.inputs),
        outputs=tuple(manifest.outputs),
        quantized=bool(manifest.facts.get("quantized")),
    )
    golden = GoldenVectors(
        inputs={name: array[:, None] for name, array in samples.inputs.items()},
        outputs={name: array[:, None] for name, array in samples.original.items()},
        made_from="calibration",
    )
    fitted = target.fit_golden(original, lowered, golden) if isinstance(target, FitsGolden) else golden
    rows = list(target.run(lowered, fitted.feeds()))
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def accuracy(samples: Samples, outputs: Mapping[str, Any]) -> Accuracy:
    """The score beside the original's. Raises UsageError for a metric that gives no number."""
    before, after = score(samples, samples.original), score(samples, outputs)
    drop = 100 * (before - after)
    if samples.metric not in _COUNTED:
        return Accuracy(after, len(samples), drop)
    import numpy as np

    lost = 100 * (_hits(samples, samples.original).astype(float) - _hits(samples, outputs).astype(float))
    wide = _SURE * float(np.std(lost)) / math.sqrt(len(samples))
    return Accuracy(after, len(samples), drop, drop - wide, drop + wide)


def score(samples: Samples, outputs: Mapping[str, Any]) -> float:
    """The metric's value, higher is better."""
    halves = torch_models.split_factory(samples.metric)
    if halves is not None:
        value = torch_models.import_named(*halves)(dict(outputs), samples.labels)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise UsageError(
                f"the metric gave {value!r}", where=samples.metric, expected="a finite number", code="metric"
            )
        return float(value)
    if samples.metric == "mse":
        return plain_score(dict(outputs), samples.labels, "mse")
    return float(_hits(samples, outputs).mean())


def _hits(samples: Samples, outputs: Mapping[str, Any]) -> Any:
    import numpy as np

    count = len(samples)
    values = _first(outputs).reshape(count, -1)
    labels = samples.labels
    if samples.metric == "agreement":
        labels = _first(samples.original).reshape(count, -1).argmax(axis=1)
    best = np.argsort(-values, axis=1)[:, : 5 if samples.metric == "top5" else 1]
    return (best == np.asarray(labels).reshape(-1, 1)).any(axis=1)


def _first(outputs: Mapping[str, Any] | Sequence[Any]) -> Any:
    return next(iter(outputs.values())) if isinstance(outputs, Mapping) else outputs[0]
