"""Pruning as a whole: step by step along a schedule, fine-tuned between the steps, stopped at the accuracy budget."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.contract.errors import BudgetError, UsageError, unknown_name
from packager import torch_models
from packager.compress.prune import attention, structured, unstructured
from packager.compress.prune.schedule import sparsities
from packager.compress.train import Loss, Trainer
from packager.compress.training_data import Batches

METHODS = (*unstructured.METHODS, "structured")


@dataclasses.dataclass(frozen=True)
class PruneOptions:
    """What goes, and when. `sparsity` is the share of weights (l1: of each layer, l1-global: of all layers together) or of
    channels (structured) that goes. `schedule` is one-shot, linear or cubic over `steps`, or the shares themselves.
    """

    method: str = "l1-global"
    sparsity: float = 0.5
    schedule: str | Sequence[float] = "one-shot"
    steps: int = 1
    layers: Sequence[str] = ()
    exclude: Sequence[str] = ()
    heads: Mapping[str, int] = dataclasses.field(default_factory=dict)
    round_to: int = 1


@dataclasses.dataclass(frozen=True)
class FineTuning:
    """How the module is trained after each step."""

    trainer: Trainer
    batches: Batches
    loss: Loss


@dataclasses.dataclass(frozen=True)
class Pruned:
    """`module` is the pruned copy; `share` what was reached; `curve` the score after each step that was tried (None where
    nobody scores); `stopped` says why the schedule ended early; `attention` the heads before and after, by module.
    `history`, `heads` and `split` rebuild a structured result.
    """

    module: Any
    share: float
    curve: list[tuple[float, float | None]]
    fine_tuned: bool
    stopped: str = ""
    original_score: float | None = None
    history: list[Any] = dataclasses.field(default_factory=list)
    heads: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    attention: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    split: tuple[str, ...] = ()


@dataclasses.dataclass
class _Best:
    module: Any
    share: float
    history: list[Any]
    left: dict[str, int]


@dataclasses.dataclass(frozen=True)
class _Limit:
    """What the score may lose: points, or percent of the original's."""

    points: float | None
    percent: float | None

    @property
    def given(self) -> bool:
        return self.points is not None or self.percent is not None

    def passed(self, before: float, after: float) -> bool:
        if self.percent is not None:
            return before - after > self.percent / 100 * abs(before)
        return self.points is not None and 100 * (before - after) > self.points

    def __str__(self) -> str:
        return f"{self.points:g} points" if self.percent is None else f"{self.percent:g} % of the score"


def prune(
    module: Any,
    examples: tuple[Any, ...],
    options: PruneOptions,
    *,
    fine_tuning: FineTuning | None = None,
    score: Callable[[Any], float] | None = None,
    max_drop: float | None = None,
    max_drop_relative: float | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Pruned:
    """A pruned copy of the module, in eval mode.

    With `score` (module to a number, higher is better) and `max_drop` (points: 0.01 of the score) or `max_drop_relative`
    (percent of the original's score) the last state within the budget is kept. Raises UsageError for bad options,
    ConvertError where it cannot be pruned, BudgetError when even the first step loses more than the budget.
    """
    if options.method not in METHODS:
        raise unknown_name("pruning method", options.method, METHODS)
    limit = _Limit(max_drop, max_drop_relative)
    if limit.given and score is None:
        raise UsageError("a budget needs a score", fix="give evaluation data", code="no-eval")
    goals = sparsities(options.sparsity, options.schedule, options.steps)
    work = copy.deepcopy(module).eval()
    before = score(work) if score is not None else None
    split: list[str] = []
    if options.method == "structured":
        split = attention.splittable(work, options.layers, options.exclude)
        attention.split(work, split)
    heads = {one.name: one.heads for one in attention.find(work)}
    knife = _knife(work, examples, options, goals)
    best: _Best | None = None
    curve: list[tuple[float, float | None]] = []
    stopped = ""
    for share in goals:
        progress(f"pruning to {share:.0%}")
        knife.raise_to(share)
        if fine_tuning is not None:
            fine_tuning.trainer(work, fine_tuning.batches, fine_tuning.loss)
        work.eval()
        found = score(work) if score is not None else None
        curve.append((share, found))
        if found is not None and before is not None and limit.passed(before, found):
            stopped = f"at {share:.0%} the score fell from {before:.4g} to {found:.4g}: {limit} allowed"
            break
        best = _kept(module, work, knife, share, copied=limit.given)
    if best is None:
        raise BudgetError(
            f"pruning does not keep the budget: {stopped}",
            expected=f"at most {limit} lost",
            fix="a lower sparsity, more and smaller steps, or more fine-tuning between them",
            code="prune-budget",
        )
    return Pruned(
        best.module,
        best.share,
        curve,
        fine_tuning is not None,
        stopped,
        before,
        history=best.history,
        heads=structured.head_counts(best.module) if best.left else {},
        attention={name: (heads.get(name, count), count) for name, count in best.left.items()},
        split=tuple(split),
    )


def _knife(work: Any, examples: tuple[Any, ...], options: PruneOptions, goals: list[float]) -> Any:
    if options.method != "structured":
        if options.heads:
            raise UsageError("heads are removed by structured pruning only", fix='method = "structured"', code="heads")
        return unstructured.Masks(work, options.method, options.layers, options.exclude)
    return structured.Channels(
        work,
        examples,
        goals,
        layers=options.layers,
        exclude=options.exclude,
        heads=options.heads,
        round_to=options.round_to,
    )


def _kept(original: Any, work: Any, knife: Any, share: float, *, copied: bool) -> _Best:
    """This state, its masks made permanent; a copy when the work may go on and be thrown away."""
    if isinstance(knife, structured.Channels):
        return _Best(copy.deepcopy(work) if copied else work, share, list(knife.history), dict(knife.left))
    final = copy.deepcopy(original).eval()
    final.load_state_dict(knife.permanent_state(work))
    return _Best(final, share, [], {})


def save(pruned: Pruned, path: Path) -> None:
    """Writes weights and what was removed; `load` rebuilds the module without running code of the file."""
    torch = torch_models.need_torch()
    history = [[name, bool(out), [int(index) for index in indices]] for name, out, indices in pruned.history]
    state = {
        "state": pruned.module.state_dict(),
        "history": history,
        "heads": pruned.heads,
        "split": list(pruned.split),
    }
    torch.save(state, str(path))


def load(module: Any, examples: tuple[Any, ...], path: str | Path) -> Any:
    """The pruned module out of a file of `save`; `module` is a fresh one of the factory's. Raises UsageError."""
    import pickle

    torch = torch_models.need_torch()
    try:
        saved = torch.load(str(path), map_location="cpu", weights_only=True)
        fresh = copy.deepcopy(module)
        attention.split(fresh, saved["split"])
        if saved["history"]:
            structured.replay(fresh, examples, [tuple(one) for one in saved["history"]], saved["heads"])
        fresh.load_state_dict(saved["state"])
    except (OSError, RuntimeError, KeyError, TypeError, IndexError, AttributeError, pickle.UnpicklingError) as error:
        raise UsageError(
            f"not the pruned state of this module: {str(error)[:400]}",
            where=str(path),
            expected="a file of prune.save for the same module",
            code="prune-state",
        ) from error
    return fresh.eval()
