"""A module scored on labelled samples while it is pruned: higher is better, 1 point is 0.01."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agent.contract.errors import UsageError, unknown_name
from packager import torch_models
from packager.calibration import load_numpy
from packager.compress.training_data import LABELS, from_arrays

METRICS = ("top1", "top5", "mse")
_BATCH = 64


def module_scorer(data: str, metric: str, inputs: Sequence[str], outputs: Sequence[str]) -> Callable[[Any], float]:
    """A function from module to score. `metric` is top1, top5, mse (negated) or file.py:score. Raises UsageError."""
    arrays = load_numpy(Path(data))
    if not isinstance(arrays, dict) or LABELS not in arrays:
        raise UsageError("no `labels` in the evaluation data", where=data, code="no-labels")
    from_arrays(arrays, inputs, where=data)  # names and lengths
    halves = torch_models.split_factory(metric)
    if halves is None and metric not in METRICS:
        raise unknown_name("metric", metric, METRICS, fix="name one of these, or file.py:score")
    own = torch_models.import_named(*halves) if halves is not None else None

    def score(module: Any) -> float:
        found = run(module, arrays, inputs, outputs)
        value = own(found, arrays[LABELS]) if own is not None else plain_score(found, arrays[LABELS], metric)
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise UsageError(f"the metric gave {value!r}", where=metric, expected="a finite number", code="metric")
        return float(value)

    return score


def run(module: Any, arrays: dict[str, Any], inputs: Sequence[str], outputs: Sequence[str]) -> dict[str, Any]:
    """The module's outputs by name, stacked over all samples."""
    import numpy as np

    count = len(arrays[inputs[0]])
    parts = [{name: arrays[name][start : start + _BATCH] for name in inputs} for start in range(0, count, _BATCH)]
    rows = list(torch_models.run_module(module.eval(), parts, inputs, outputs))
    return {name: np.concatenate([row[name] for row in rows]) for name in outputs}


def plain_score(outputs: dict[str, Any], labels: Any, metric: str) -> float:
    """top1, top5 or (negated) mse of the first output."""
    import numpy as np

    values = next(iter(outputs.values()))
    if metric == "mse":
        return -float(np.mean((values - labels.reshape(values.shape)) ** 2))
    flat = values.reshape(len(labels), -1)
    best = np.argsort(-flat, axis=1)[:, : 1 if metric == "top1" else 5]
    return float((best == labels.reshape(-1, 1)).any(axis=1).mean())
