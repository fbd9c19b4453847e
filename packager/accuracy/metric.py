"""Metrics: outputs and labels to a number, higher is better, with the interval in which the truth most likely lies."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError, UsageError, unknown_name
from agent.contract.finding import WARNING, Finding
from packager import torch_models
from packager.accuracy import intervals

if TYPE_CHECKING:
    import numpy as np

    from packager.accuracy.dataset import EvalSet

    Array = np.ndarray[Any, Any]
    Outputs = Mapping[str, Array]

BUILT_IN = ("top1", "top5", "mse", "cosine", "agreement")
FEW = 100
_TRIED = 24  # samples on which a user's metric is tried one by one, before all of them are


@dataclasses.dataclass(frozen=True)
class Score:
    """`score` over `n` samples; `interval` holds the truth with 95 % (None where nothing is known of it).

    `rows` are the samples' own scores, where the metric is their mean; `draws` the scores of samples drawn anew, where it is
    not, but has a bootstrap.
    """

    metric: str
    score: float
    n: int
    interval: tuple[float, float] | None
    method: str
    rows: Array | None = dataclasses.field(default=None, compare=False, repr=False)
    draws: Array | None = dataclasses.field(default=None, compare=False, repr=False)

    def document(self) -> dict[str, Any]:
        """For --json."""
        return {
            "metric": self.metric,
            "score": self.score,
            "n": self.n,
            "interval": None if self.interval is None else list(self.interval),
        }

    def findings(self) -> list[Finding]:
        """Says how little few samples tell."""
        if self.n >= FEW or self.interval is None:
            return []
        low, high = self.interval
        text = f"{self.n} samples: the true {self.metric} lies between {low:.3g} and {high:.3g} (95 %, {self.method})"
        return [Finding("few-eval-samples", WARNING, text, "take some hundred samples to tell points apart")]


@dataclasses.dataclass(frozen=True)
class Metric:
    """`rows` gives each sample's score, for metrics that are a mean of them; `whole` is the user's function of all.

    `needs` is "labels", "original" (the outputs of the original model) or "either". `bounded`: at most 1, so that a point of
    0.01 says something; an error is not.
    """

    name: str
    needs: str = "labels"
    rows: Callable[[Outputs, Any], Array] | None = None
    whole: Callable[[Outputs, Any], Any] | None = None
    bounded: bool = True

    def measure(self, outputs: Outputs, labels: Array | None, original: Outputs | None = None) -> Score:
        """The score of these outputs. Raises UsageError for a metric that gives none, ConvertError for outputs of NaN."""
        n = len(next(iter(outputs.values())))
        if self.whole is not None:
            return self._users(outputs, labels, n)
        _check_finite(outputs)
        rows = self._builtin(outputs, labels, original)
        score = float(rows.mean())
        low_high, method = intervals.of_mean(rows)
        return Score(self.name, score, n, low_high, method, rows)

    def _builtin(self, outputs: Outputs, labels: Array | None, original: Outputs | None) -> Array:
        truth: Any = original if self.needs == "original" or (self.needs == "either" and labels is None) else labels
        if truth is None and self.needs == "original":
            truth = labels  # "agreement" of a bundle alone: the labels are the original's answers
        if truth is None:
            what = "labels" if self.needs == "labels" else "labels, or the original to compare with"
            raise UsageError(f"the metric {self.name} needs {what}", fix="add `labels` to the .npz", code="no-labels")
        if self.rows is None:
            raise UsageError(f"the metric {self.name} cannot be computed", code="metric")
        return self.rows(outputs, truth)

    def _users(self, outputs: Outputs, labels: Array | None, n: int) -> Score:
        score = self._call(outputs, labels)
        rows = self._one_by_one(outputs, labels, n, score)
        if rows is not None:
            low_high, method = intervals.of_mean(rows)
            return Score(self.name, score, n, low_high, method, rows)
        interval, method, draws = intervals.of_function(lambda picks: self.on(outputs, labels, picks), n, score)
        return Score(self.name, score, n, interval, method, None, draws)

    def on(self, outputs: Outputs, labels: Array | None, picks: Array) -> float:
        """The score of these samples only. What the user's metric warns of then is not the user's concern: it was written for
        the whole set, and one sample may have nothing that it can take a mean of.
        """
        part = {name: value[picks] for name, value in outputs.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self._call(part, None if labels is None else labels[picks])

    def _one_by_one(self, outputs: Outputs, labels: Array | None, n: int, score: float) -> Array | None:
        """Each sample's score, when the metric turns out to be their mean; else None."""
        import numpy as np

        def rows(count: int) -> Array:
            found: Array = np.array([self.on(outputs, labels, np.array([index])) for index in range(count)])
            return found

        try:
            few = rows(min(_TRIED, n))
            if not math.isclose(self.on(outputs, labels, np.arange(len(few))), few.mean(), abs_tol=1e-6):
                return None
            every = rows(n)
        except (UsageError, ConvertError):
            return None  # a metric of all samples at once (a ranking) may not be defined for one
        return every if math.isclose(float(every.mean()), score, abs_tol=1e-6) else None

    def _call(self, outputs: Outputs, labels: Array | None) -> float:
        assert self.whole is not None  # noqa: S101 - only called where it is
        with torch_models.user_code(self.name.rpartition(":")[0]):
            try:
                value = self.whole(outputs, labels)
            except (Exception, SystemExit) as error:
                told = ", ".join(f"{name} {list(value.shape)}" for name, value in outputs.items())
                expected = f"a float for the outputs {told}" if isinstance(error, (KeyError, IndexError)) else ""
                raise UsageError(
                    f"the metric raised {error!r}", where=self.name, expected=expected, code="metric-failed"
                ) from error
        if isinstance(value, (bool, str, bytes)) or not hasattr(value, "__float__"):
            raise _bad(self.name, f"returned {value!r}, a {type(value).__name__}")
        try:
            number = float(value)
        except (TypeError, ValueError) as error:
            raise _bad(self.name, f"returned a {type(value).__name__} that is no single number") from error
        if not math.isfinite(number):
            raise _bad(self.name, f"returned {number}")
        return number


def number(score: float) -> str:
    """Four digits after the point; of scores below 0.1 or above 10 four digits that count."""
    return f"{score:.4f}" if score == 0 or 0.1 <= abs(score) < 10 else f"{score:.4g}"  # noqa: PLR2004


def fall(before: float, after: float) -> str:
    """From a score to another, in words, with as many digits as tell them apart (a cosine of 0.99998 is no 1)."""
    if number(before) != number(after) or before == after:
        return f"{number(before)} to {number(after)}"
    digits = 5
    while f"{before:.{digits}g}" == f"{after:.{digits}g}":
        digits += 1
    return f"{before:#.{digits}g} to {after:#.{digits}g}"


def load_metric(name: str | None, data: EvalSet) -> Metric:
    """The metric of this name, or FILE.py:function. Without a name: top1 with class labels, agreement without any.

    Raises UsageError.
    """
    if not name:
        if data.labels is None:
            return _BUILT["agreement"]
        if data.labels.ndim == 1 and data.labels.dtype.kind in "iu":
            return _BUILT["top1"]
        raise UsageError(
            f"which metric? The labels are no class numbers ({data.labels.dtype}, {list(data.labels.shape)})",
            where=data.where,
            fix="--metric mse, cosine or FILE.py:score",
            code="no-metric",
        )
    if name in _BUILT:
        metric = _BUILT[name]
        if metric.needs == "labels" and data.labels is None:
            raise UsageError(
                f"the metric {name} needs labels",
                where=data.where,
                fix="add `labels` to the .npz, or take --metric agreement",
                code="no-labels",
            )
        return metric
    halves = torch_models.split_factory(name)
    if halves is None:
        raise unknown_name("metric", name, BUILT_IN, fix="or your own: FILE.py:score, score(outputs, labels) -> float")
    function = torch_models.import_named(*halves)
    if not callable(function):
        raise UsageError(f"{halves[1]} is no function", where=halves[0], code="metric")
    return Metric(name=name, whole=function)


def _bad(name: str, what: str) -> UsageError:
    return UsageError(
        f"the metric {what}",
        where=name,
        expected="a finite number, higher is better",
        fix="let score(outputs, labels) return a float",
        code="metric-result",
    )


def _check_finite(outputs: Outputs) -> None:
    import numpy as np

    for name, values in outputs.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            bad = int((~np.isfinite(values.reshape(len(values), -1))).any(axis=1).sum())
            raise ConvertError(
                f"the output {name!r} holds NaN or infinity in {bad} of {len(values)} samples", code="nan-output"
            )


def _one(outputs: Outputs, metric: str) -> Array:
    if len(outputs) != 1:
        raise UsageError(
            f"{metric} needs one output, the model has {len(outputs)}: {', '.join(outputs)}",
            fix="--metric FILE.py:score chooses among them",
            code="metric",
        )
    (values,) = outputs.values()
    return values.reshape(len(values), -1)


def _classes(outputs: Outputs, labels: Array, metric: str) -> Array:
    values = _one(outputs, metric)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UsageError(
            f"{metric} needs class numbers; the labels are {labels.dtype} of the shape {list(labels.shape)}",
            expected="integers, one for each sample",
            code="labels",
        )
    if labels.min() < 0 or labels.max() >= values.shape[1]:
        raise UsageError(
            f"the labels reach from {labels.min()} to {labels.max()}, the model has {values.shape[1]} classes",
            code="labels",
        )
    return values


def _top1(outputs: Outputs, labels: Array) -> Array:
    found: Array = _classes(outputs, labels, "top1").argmax(axis=1) == labels
    return found.astype(float)


def _top5(outputs: Outputs, labels: Array) -> Array:
    values = _classes(outputs, labels, "top5")
    best: Array = (values.argsort(axis=1)[:, -5:] == labels[:, None]).any(axis=1)
    return best.astype(float)


def _pairs(outputs: Outputs, truth: Any, metric: str) -> list[tuple[Array, Array]]:
    """Outputs beside what they should be, as float rows: the original's outputs by name, or the labels."""
    import numpy as np

    told: Mapping[str, Any] = truth if isinstance(truth, Mapping) else {next(iter(outputs)): truth}
    if not isinstance(truth, Mapping):
        _one(outputs, metric)
    pairs = []
    for name, wanted in told.items():
        have: Array = outputs[name].reshape(len(outputs[name]), -1).astype(np.float64)
        want: Array = np.asarray(wanted).reshape(len(wanted), -1).astype(np.float64)
        if have.shape != want.shape:
            raise UsageError(
                f"{metric} compares {have.shape[1]} values of the output {name!r} with {want.shape[1]}",
                expected="labels in the output's own shape",
                code="labels",
            )
        pairs.append((have, want))
    return pairs


def _mse(outputs: Outputs, truth: Any) -> Array:
    rows: Any = [((have - want) ** 2).mean(axis=1) for have, want in _pairs(outputs, truth, "mse")]
    result: Array = -sum(rows) / len(rows)
    return result


def _cosine(outputs: Outputs, truth: Any) -> Array:
    import numpy as np

    rows: Any = []
    for have, want in _pairs(outputs, truth, "cosine"):
        lengths = np.linalg.norm(have, axis=1) * np.linalg.norm(want, axis=1)
        same = (have == want).all(axis=1)
        rows.append(np.where(same, 1.0, (have * want).sum(axis=1) / np.maximum(lengths, 1e-300)))
    result: Array = sum(rows) / len(rows)
    return result


def _agreement(outputs: Outputs, truth: Any) -> Array:
    import numpy as np

    if not isinstance(truth, Mapping):
        return _top1(outputs, truth)
    rows: Array = np.ones(len(next(iter(outputs.values()))), bool)
    for name, wanted in truth.items():
        have = outputs[name]
        if wanted.dtype.kind == "f":
            if wanted.ndim < 2 or wanted.shape[-1] == 1:  # noqa: PLR2004 - sample and class
                raise UsageError(
                    f"agreement compares the largest of several values, and the output {name!r} has one",
                    fix="--metric cosine, mse or FILE.py:score",
                    code="metric",
                )
            same = have.argmax(axis=-1) == wanted.argmax(axis=-1)
        else:
            same = have == wanted
        rows &= same.reshape(len(rows), -1).all(axis=1)
    return rows.astype(float)


_BUILT = {
    "top1": Metric("top1", "labels", _top1),
    "top5": Metric("top5", "labels", _top5),
    "mse": Metric("mse", "either", _mse, bounded=False),
    "cosine": Metric("cosine", "either", _cosine),
    "agreement": Metric("agreement", "original", _agreement),
}
