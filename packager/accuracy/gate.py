"""The accuracy of a build: measured before and after, searched for where INT8 misses its budget, refused where it stays so."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import TYPE_CHECKING, Any

from agent.contract import codec
from agent.contract.errors import BudgetError, UsageError
from agent.contract.finding import INFO, WARNING, Finding
from packager.accuracy.dataset import EvalSet, load_eval
from packager.accuracy.evaluate import EXACT
from packager.accuracy.metric import Metric, Score, fall, load_metric
from packager.accuracy.paired import Budget, Drop, budget_for, paired_drop, settled
from packager.accuracy.search import Search
from packager.accuracy.subject import Subject, decibels, folder_for, original_score
from packager.accuracy.trials import Memory, Outcome
from packager.compress.onnx_layers import share_of
from packager.protocols import Tunable
from packager.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from packager.artifact import Artifact
    from packager.protocols import Lowering, Target

_MOST_NAMED = 8
DEFAULT_MINUTES = 20.0
_LEAST_HALF = 200  # samples: with fewer, a point is two of them, and chance alone would fail budgets
_MOST_SEARCHED = 1000  # enough to tell a point; more only takes longer


@dataclasses.dataclass(frozen=True)
class Wish:
    """What the user asked for, as the command line has it."""

    eval: str | None = None
    test: str | None = None
    metric: str | None = None
    max_drop: float | None = None
    max_drop_relative: float | None = None
    allow_drop: bool = False
    search_minutes: float | None = None


@dataclasses.dataclass(frozen=True)
class Gate:
    """The sets are loaded, the metric and the budget known. `test` is what the search never sees: the user's own, or
    (`held`) a half of the evaluation set.
    """

    data: EvalSet
    test: EvalSet | None
    metric: Metric
    budget: Budget
    allow_drop: bool
    minutes: float
    held: bool = False


@dataclasses.dataclass(frozen=True)
class Passed:
    """The lowered model, the job with the recipe that made it, and what there is to tell."""

    artifact: Artifact
    job: Lowering
    facts: dict[str, Any]
    findings: tuple[Finding, ...]


def open_gate(wish: Wish, artifact: Artifact) -> Gate | None:
    """Loads and checks everything, so that a build fails before its work. None without --eval. Raises UsageError."""
    if wish.eval is None:
        for key in ("test", "metric", "max_drop", "max_drop_relative", "search_minutes"):
            if getattr(wish, key) is not None:
                raise UsageError(
                    f"--{key.replace('_', '-')} without an evaluation set", fix="give --eval DATA.npz", code="no-eval"
                )
        return None
    minutes = DEFAULT_MINUTES if wish.search_minutes is None else wish.search_minutes
    if not 0 <= minutes < float("inf"):
        raise UsageError(f"--search-minutes {minutes:g}", expected="0 (no search) or more", code="minutes")
    data = load_eval(wish.eval, artifact.inputs)
    test = load_eval(wish.test, artifact.inputs) if wish.test else None
    if test is not None and (test.labels is None) != (data.labels is None):
        raise UsageError("--eval and --test must both have labels, or neither", where=test.where, code="no-labels")
    metric = load_metric(wish.metric, data)
    budget = budget_for(metric, wish.max_drop, wish.max_drop_relative, labelled=data.labels is not None)
    return Gate(data, test, metric, budget, wish.allow_drop, minutes)


def lower(
    target: Target,
    original: Artifact,
    ready: Artifact,
    job: Lowering,
    gate: Gate | None,
    source: Artifact | None = None,
) -> Passed:
    """`ready` lowered by `target`, within the budget. `source` is what the user gave, where steps on modules (pruning,
    training) have made another original of it: the budget holds against both.

    Raises BudgetError (exit code 6) where that cannot be had.
    """
    subject = Subject(original, ready, target, job)
    if gate is None:
        # What was prepared for the quantiser serves the counting of layers too.
        subject.job = job = dataclasses.replace(job, cache=job.cache or job.workdir)
        lowered = target.lower(ready, job)
        return Passed(lowered, job, _share(subject, lowered, job), ())
    job.progress(f"scoring the original on {len(gate.data)} samples")
    before = original_score(original, gate.data, gate.metric)
    gate = dataclasses.replace(gate, budget=settled(gate.budget, gate.metric, before[0]))
    searched = isinstance(target, Tunable) and job.recipe.needs_calibration and not ready.quantized and gate.minutes > 0
    outcome = None
    if searched:
        narrow, first = _search_set(gate, before)
        outcome, job = _search(subject, narrow, first)
        if narrow.held and len(outcome.trials) > 1:
            gate = narrow  # else no sample has chosen anything, and all of them tell the accuracy
    lowered = target.lower(ready, job)
    return _judge(subject, gate, before, lowered, job, outcome, source)


def _search_set(gate: Gate, before: tuple[Score, Any]) -> tuple[Gate, tuple[Score, Any]]:
    """What the search works on, and the original's score there: some samples of many; where the metric is a mean of the
    samples' scores, there are enough, and the user gave no test set, one half, the other held out.
    """
    import numpy as np

    data, test, count = gate.data, gate.test, len(gate.data)
    if before[0].rows is None or any(len(values) != count for values in before[1].values()):
        return gate, before
    order = np.random.default_rng(0).permutation(count)  # sets are often sorted by their labels
    held = test is None and count >= 2 * _LEAST_HALF
    if held:
        test = data.part(np.sort(order[count // 2 :]))
    elif count <= _MOST_SEARCHED:
        return gate, before
    picks = np.sort(order[: count // 2 if held else count][:_MOST_SEARCHED])
    data = gate.data.part(picks)
    outputs = {name: values[picks] for name, values in before[1].items()}
    return (
        dataclasses.replace(gate, data=data, test=test, held=held),
        (gate.metric.measure(outputs, data.labels, outputs), outputs),
    )


def _search(subject: Subject, gate: Gate, before: tuple[Score, Any]) -> tuple[Outcome, Lowering]:
    target: Any = subject.target
    folder = folder_for(_key(subject, gate))
    subject.job = job = dataclasses.replace(subject.job, cache=folder)
    layers = target.layers(subject.ready, job)
    search = Search(
        subject,
        gate.data,
        gate.metric,
        before,
        layers,
        gate.budget,
        minutes=gate.minutes,
        memory=Memory(folder / "search.json"),
        progress=job.progress,
    )
    outcome = search.run(job.recipe, target.levers(job.recipe, job.profile))
    return outcome, dataclasses.replace(job, recipe=outcome.best.recipe)


def _key(subject: Subject, gate: Gate) -> str:
    """By content: the same search of the same model on the same data goes on where it stopped."""
    job = subject.job
    data = "" if job.calibration is None else job.calibration.record().digest
    metric = gate.metric.name
    if gate.metric.whole is not None:
        from pathlib import Path

        place = Path(metric.rpartition(":")[0])
        metric += hashlib.sha256(place.read_bytes()).hexdigest() if place.is_file() else ""
    parts = [
        __version__,
        subject.target.name,
        subject.ready.digest,
        data,
        gate.data.digest(),
        metric,
        str(gate.budget),
        json.dumps(codec.encode(job.recipe), sort_keys=True),
        json.dumps(codec.encode(job.profile), sort_keys=True),
        json.dumps({name: list(shape) for name, shape in job.shapes.items()}, sort_keys=True),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def _judge(
    subject: Subject,
    gate: Gate,
    before: tuple[Score, Any],
    lowered: Artifact,
    job: Lowering,
    outcome: Outcome | None,
    source: Artifact | None,
) -> Passed:
    candidate = subject.wrap(job.recipe, lowered)
    data, unseen = (gate.test, True) if gate.test is not None else (gate.data, False)
    if unseen:
        job.progress(f"scoring both on {len(data)} samples that the search has not seen")
        before = original_score(subject.original, data, gate.metric)
    job.progress(f"scoring the {job.recipe.precision} model on {len(data)} samples")
    outputs = subject.outputs(candidate, data)
    after = gate.metric.measure(outputs, data.labels, before[1])
    drop = paired_drop(before[0], after)
    facts = _share(subject, lowered, job)
    facts["accuracy"] = {
        "metric": _short(gate.metric.name),
        "original": before[0].score,
        "bundle": after.score,
        "n": after.n,
        "drop_points": drop.points,
        "drop_interval": None if drop.interval is None else list(drop.interval),
        "drop_percent": drop.relative,
        "budget": str(gate.budget),
        "samples": "held-out" if gate.held else "test" if unseen else "eval",
    }
    findings = [*_told(outcome, job), *after.findings()]
    if candidate.model.exact:
        findings.append(EXACT)
    if outcome is not None:
        facts["search"] = _steps(outcome)
        if gate.held:
            text = f"the search chose by {len(gate.data)} of the samples, the accuracy is that of the other {len(data)}"
            findings.append(Finding("split-eval", INFO, text, "to choose which, give samples of their own with --test"))
        if not unseen and len(outcome.trials) > 1:
            text = "the accuracy stands on the samples by which the search chose: on others it may be a little lower"
            findings.append(Finding("seen-samples", INFO, text, "give samples of their own with --test"))
    missed = None if gate.budget.met(drop) else _missed(gate, before[0], after, drop, outcome)
    if source is not None:
        job.progress("scoring the source, as it was before the recipe's steps")
        first = original_score(source, data, gate.metric)
        after = gate.metric.measure(outputs, data.labels, first[1])
        drop = paired_drop(first[0], after)
        facts["accuracy"]["source"] = first[0].score
        if missed is None and not gate.budget.met(drop):
            missed = _steps_missed(gate, first[0], after, drop)
    if missed is not None:
        if not gate.allow_drop:
            raise missed
        findings.append(Finding("over-budget", WARNING, missed.what, "allowed by --allow-drop"))
    return Passed(lowered, job, facts, tuple(findings))


def _steps(outcome: Outcome) -> list[dict[str, Any]]:
    """What each step bought, in their order: the recipe, the cures, then what was left in float."""
    first, *others = (one.document() for one in outcome.trials)
    return [first, *(one.document() for one in outcome.cures), *others]


def _short(metric: str) -> str:
    """No folders: the same metric in another place gives the same bundle."""
    return metric.rpartition("/")[2]


def _share(subject: Subject, lowered: Artifact, job: Lowering) -> dict[str, Any]:
    """The shares of INT8, where the recipe makes INT8 and the target can tell."""
    target = subject.target
    if not isinstance(target, Tunable) or not job.recipe.precision.startswith("int8") or subject.ready.quantized:
        return {}
    if job.calibration is None and any(
        not isinstance(size, int) for spec in subject.ready.inputs for size in spec.shape[1:]
    ):
        return {}  # free shapes, and no sample that tells how large they are
    layers = target.layers(subject.ready, job)
    return {"int8_share": share_of(layers, target.int8_layers(lowered, layers)).document()}


def _told(outcome: Outcome | None, job: Lowering) -> list[Finding]:
    if outcome is None:
        return []
    advice = "the search went on without that candidate: please report it, the fault is edgepack's"
    failed = [
        Finding("candidate-failed", WARNING, f"a candidate failed as none should: {one}", advice)
        for one in outcome.unforeseen
    ]
    if len(outcome.trials) < 2:  # noqa: PLR2004 - the first is the recipe itself
        return failed
    left, share = job.recipe.exclude, outcome.best.share
    text = (
        f"{len(outcome.trials)} candidates tried: {share.macs:.1%} of the multiply-adds and "
        f"{share.weights:.1%} of the weights are INT8"
    )
    if left:
        named = ", ".join(left[:_MOST_NAMED]) + (
            f" and {len(left) - _MOST_NAMED} more" if len(left) > _MOST_NAMED else ""
        )
        text += f"; in float: {named}"
    findings = [Finding("searched", INFO, text, ""), *failed]
    if outcome.timed_out:
        findings.append(Finding("search-time", WARNING, "the search ended by its time", "give more --search-minutes"))
    return findings


def _steps_missed(gate: Gate, source: Score, after: Score, drop: Drop) -> BudgetError:
    return BudgetError(
        f"{_short(gate.metric.name)} falls from the source's {fall(source.score, after.score)}: "
        f"{gate.budget.told(drop)} lost, {gate.budget} allowed",
        where="what blocks it: the recipe's steps before the conversion (prune, distill, qat)",
        expected=f"at most {gate.budget} lost on {after.n} samples",
        fix="a lower sparsity, more training in the step, a budget of its own for it ([steps.budget]), or --allow-drop",
        code="max-drop",
    )


def _missed(gate: Gate, before: Score, after: Score, drop: Drop, outcome: Outcome | None) -> BudgetError:
    blocks: Sequence[str] = ()
    fix = "take --recipe fp16, train with quantisation in a recipe with qat, or --allow-drop"
    if outcome is not None:
        worst = sorted(outcome.sensitivities, key=lambda one: -one.noise)[:3]
        blocks = [f"{one.layer.name} ({one.layer.operator}, {decibels(one.noise):.1f} dB alone)" for one in worst]
        if outcome.timed_out:
            fix = "give more --search-minutes (it goes on where it stopped), or " + fix
    tried = f"; best of {len(outcome.trials)} candidates" if outcome is not None else ""
    return BudgetError(
        f"{_short(gate.metric.name)} falls from {fall(before.score, after.score)}: "
        f"{gate.budget.told(drop)} lost, "
        f"{gate.budget} allowed{tried}",
        where="what blocks it: " + ("; ".join(blocks) if blocks else "not searched") if outcome is not None else "",
        expected=f"at most {gate.budget} lost on {after.n} samples",
        fix=fix,
        code="max-drop",
    )
