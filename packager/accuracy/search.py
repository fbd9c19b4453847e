"""The search for INT8 that keeps its accuracy: cheap cures first, then the fewest layers left in float, by bisection."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract import codec
from agent.contract.errors import ConvertError
from packager.accuracy.metric import Score
from packager.accuracy.paired import Budget, Drop, paired_drop
from packager.accuracy.sensitivity import Sensitivity, measure_layer
from packager.accuracy.subject import decibels
from packager.compress.onnx_layers import Int8Share, Layer, share_of

if TYPE_CHECKING:
    from packager.accuracy.dataset import EvalSet
    from packager.accuracy.metric import Metric
    from packager.accuracy.subject import Lowered, Subject
    from packager.recipe import Recipe

LEAST_MACS = 0.8
MOST_FACTOR = 3  # evaluations, against those of one bisection
_PAYS = 0.95  # of the noise before: a cure that leaves more has bought nothing
_FEW_LAYERS = 8  # up to here a bisection is no measure of what a search may take


@dataclasses.dataclass(frozen=True)
class Trial:
    """One candidate that was scored. `spent` is the share of the budget its drop takes, `risk` that of its drop with one
    standard error: what samples that the search never saw must be expected to take now and then.
    """

    words: str
    recipe: Recipe
    score: Score | None
    drop: Drop | None
    spent: float
    risk: float
    share: Int8Share
    why: str = ""

    @property
    def safe(self) -> bool:
        """Whether other samples will most likely stay within the budget too."""
        return self.risk <= 1

    def document(self) -> dict[str, Any]:
        """For the manifest: what the step bought."""
        told: dict[str, Any] = {"step": self.words, "int8_share": self.share.document()}
        if self.score is None or self.drop is None:
            return {**told, "failed": self.why}
        return {**told, "score": round(self.score.score, 6), "drop_points": round(self.drop.points, 4)}


@dataclasses.dataclass(frozen=True)
class Cure:
    """A change that leaves every layer in INT8, judged by the noise in the outputs for a few calibration samples."""

    words: str
    noise: float
    kept: bool
    why: str = ""

    def document(self) -> dict[str, Any]:
        """For the manifest: what the cure bought."""
        told: dict[str, Any] = {"step": self.words, "kept": self.kept}
        return {**told, "failed": self.why} if self.why else {**told, "sqnr_db": round(decibels(self.noise), 2)}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The best candidate, all that were tried, and what the layers cost (empty where the cures sufficed)."""

    best: Trial
    trials: Sequence[Trial]
    cures: Sequence[Cure]
    sensitivities: Sequence[Sensitivity]
    met: bool
    timed_out: bool
    seconds: float


class Memory:
    """What was measured already, in a JSON file: a search that was stopped goes on where it was."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._rows: dict[str, Any] = {}
        if path is not None and path.exists():
            try:
                self._rows = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                self._rows = {}  # cut off in the writing: what it held is measured again

    def get(self, key: str) -> Any:
        """What was kept under the key, or None."""
        return self._rows.get(key)

    def keep(self, key: str, value: Any) -> None:
        """Writes at once: the next thing that happens may be Ctrl-C."""
        self._rows[key] = value
        if self._path is not None:
            part = self._path.with_suffix(".part")
            part.write_text(json.dumps(self._rows), encoding="utf-8")
            part.replace(self._path)


class Search:
    """One search. `layers` are those that multiply; `minutes` bounds it, a started evaluation is finished."""

    def __init__(
        self,
        subject: Subject,
        data: EvalSet,
        metric: Metric,
        original: tuple[Score, Any],
        layers: Sequence[Layer],
        budget: Budget,
        *,
        minutes: float,
        memory: Memory,
        progress: Callable[[str], None],
    ) -> None:
        self.subject, self.data, self.metric, self.budget = subject, data, metric, budget
        self.layers, self.memory, self.progress = layers, memory, progress
        self.original, self._reference = original
        self._end = time.monotonic() + 60 * minutes
        self.trials: list[Trial] = []
        self.cures: list[Cure] = []

    @property
    def late(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self._end

    def run(self, base: Recipe, levers: Sequence[tuple[str, dict[str, Any]]]) -> Outcome:
        """The first candidate that is safely within the budget; else the best within it; else the best there is."""
        start = time.monotonic()
        told: list[Sensitivity] = []
        if not self.attempt("as the recipe says", base).safe and not self.late:
            recipe = self._cured(base, levers)
            safe = recipe != base and self.attempt(" + ".join(one.words for one in self.cures if one.kept), recipe).safe
            if not safe and not self.late and len(self.layers) > 1:
                told = self.sensitivities(recipe)
                if any(one.noise for one in told):
                    self._bisect(recipe, told)
        found = self._choose()
        seconds = time.monotonic() - start
        return Outcome(found, self.trials, self.cures, told, found.spent <= 1, self.late, seconds)

    def _cured(self, base: Recipe, levers: Sequence[tuple[str, dict[str, Any]]]) -> Recipe:
        """The recipe with the changes that lower the noise. A noise is smooth where a count of right answers jumps, and
        needs a few samples only, so that this costs no evaluation.
        """
        best, least = base, self._noise("as the recipe says", base)[0]
        for words, change in levers:
            if self.late:
                break
            changed = dataclasses.replace(best, **change)
            noise, why = self._noise(words, changed)
            kept = noise < _PAYS * least
            if kept:
                best, least = changed, noise
            self.cures.append(Cure(words, noise, kept, why))
            bought = why or f"{decibels(noise):.1f} dB of signal over noise{'' if kept else ', not kept'}"
            self.progress(f"{words}: {bought}")
        return best

    def _noise(self, words: str, recipe: Recipe) -> tuple[float, str]:
        key = "noise " + json.dumps(codec.encode(recipe), sort_keys=True)
        kept = self.memory.get(key)
        if kept is None:
            self.progress(f"noise of: {words}")
            try:
                kept = [self.subject.noise(self.subject.lower(recipe))[0], ""]
            except ConvertError as error:
                kept = [1e30, error.what[:200]]
            self.memory.keep(key, kept)
        return float(kept[0]), str(kept[1])

    def attempt(self, words: str, recipe: Recipe) -> Trial:
        """Lowers and scores a recipe, or remembers that; a recipe that breaks the quantiser spends everything."""
        key = "trial " + json.dumps(codec.encode(recipe), sort_keys=True)
        kept = self.memory.get(key)
        score: Score | None
        why = ""
        if kept is not None:
            score, share, why = self._recalled(kept)
        else:
            self.progress(f"trying: {words}")
            try:
                score, share = self._scored(recipe)
            except ConvertError as error:
                score, share, why = None, Int8Share(0.0, 0.0), error.what[:200]
            self.memory.keep(key, self._kept(score, share, why))
        drop = None if score is None else paired_drop(self.original, score)
        spent, risk = (math.inf, math.inf) if drop is None else (self.budget.spent(drop), self.budget.risk(drop))
        trial = Trial(words, recipe, score, drop, spent, risk, share, why)
        self.trials.append(trial)
        lost = why or f"{drop} lost, {share.macs:.1%} of the multiply-adds in INT8"
        self.progress(f"{words}: {lost}")
        return trial

    def sensitivities(self, recipe: Recipe) -> list[Sensitivity]:
        """Each layer alone, by its noise on a few calibration samples; those measured when the time is up."""
        found = []
        for place, layer in enumerate(self.layers, 1):
            key = "layer " + json.dumps([layer.name, codec.encode(recipe)], sort_keys=True)
            kept = self.memory.get(key)
            if kept is None:
                if self.late:
                    break
                self.progress(f"sensitivity of layer {place} of {len(self.layers)}: {layer.name}")
                one = measure_layer(self.subject, recipe, layer, self.layers)
                self.memory.keep(key, [one.noise, one.band, one.band_noise, one.broken])
            else:
                one = Sensitivity(layer, kept[0], kept[1], kept[2], None, kept[3])
            found.append(one)
        return found

    @property
    def _spent_all(self) -> bool:
        """Whether the time is up, or the evaluations are that a search may take."""
        most = MOST_FACTOR * math.ceil(math.log2(max(_FEW_LAYERS, len(self.layers))))
        return self.late or len(self.trials) >= most

    def _bisect(self, recipe: Recipe, told: Sequence[Sensitivity]) -> None:
        """The fewest of the worst layers in float: doubled until it suffices, halved until it is the fewest, then thinned.

        First those that leave enough multiply-adds in INT8; the others only where nothing else keeps the budget.
        """
        worst = ranked(told)
        order = affordable(worst, LEAST_MACS)

        def attempt(these: Sequence[Sensitivity]) -> Trial:
            names = tuple(one.layer.name for one in these)
            words = f"{len(names)} layer{'s' if len(names) > 1 else ''} in float"
            return self.attempt(words, dataclasses.replace(recipe, exclude=(*recipe.exclude, *names)))

        found = self._least(lambda count: attempt(order[:count]), len(order), lambda trial: trial.safe)
        if found is None and not any(one.spent <= 1 for one in self.trials):
            order = worst
            found = self._least(lambda count: attempt(order[:count]), len(order) - 1, lambda trial: trial.spent <= 1)
        if found is not None:
            self._thin(recipe, [one.layer for one in order[:found]])

    def _least(self, attempt: Callable[[int], Trial], most: int, enough: Callable[[Trial], bool]) -> int | None:
        """The smallest count that is enough; None where `most` is not, or there was no time to find out."""
        low, high = 0, min(1, most)
        while True:
            if self._spent_all or high <= low:
                return None
            if enough(attempt(high)):
                break
            low, high = high, min(2 * high, most)
        while high - low > 1 and not self._spent_all:
            middle = (low + high) // 2
            low, high = (low, middle) if enough(attempt(middle)) else (middle, high)
        return high

    def _thin(self, recipe: Recipe, kept: list[Layer]) -> None:
        """Takes layers back into INT8, the most multiply-adds first, until the budget does not bear it."""
        for layer in sorted(kept, key=lambda one: -one.macs):
            if self._spent_all or len(kept) == 1:
                return
            rest = [one for one in kept if one.name != layer.name]
            exclude = (*recipe.exclude, *(one.name for one in rest))
            if not self.attempt(f"{layer.name} back in INT8", dataclasses.replace(recipe, exclude=exclude)).safe:
                return
            kept = rest

    def _choose(self) -> Trial:
        """Safe, with the most INT8; else within the budget with the least risk; either with enough in INT8 if there is any."""
        within = [one for one in self.trials if one.spent <= 1]
        wide = [one for one in within if one.share.macs >= LEAST_MACS]
        safe = [one for one in wide if one.safe]
        if safe:
            return max(safe, key=lambda one: one.share.macs)
        if wide:
            return min(wide, key=lambda one: one.risk)
        if within:
            return max(within, key=lambda one: one.share.macs)
        # Of a budget of nothing every loss is infinitely much: then the points decide.
        return min(self.trials, key=lambda one: (one.spent, math.inf if one.drop is None else one.drop.points))

    def _scored(self, recipe: Recipe) -> tuple[Score, Int8Share]:
        lowered = self.subject.lower(recipe)
        score = self.metric.measure(self.subject.outputs(lowered, self.data), self.data.labels, self._reference)
        return score, self.share(lowered)

    def share(self, lowered: Lowered) -> Int8Share:
        """What of the layers is in INT8 in this model."""
        target: Any = self.subject.target
        return share_of(self.layers, target.int8_layers(lowered.artifact, self.layers))

    def _kept(self, score: Score | None, share: Int8Share, why: str) -> dict[str, Any]:
        told: dict[str, Any] = {"share": [share.macs, share.weights], "why": why}
        if score is not None:
            rows = None if score.rows is None else [float(one) for one in score.rows]
            told["score"] = [score.score, score.n, score.interval, score.method, rows]
        return told

    def _recalled(self, kept: dict[str, Any]) -> tuple[Score | None, Int8Share, str]:
        import numpy as np

        share = Int8Share(*kept["share"])
        if "score" not in kept:
            return None, share, kept["why"]
        value, n, interval, method, rows = kept["score"]
        ends = None if interval is None else (interval[0], interval[1])
        return Score(self.metric.name, value, n, ends, method, None if rows is None else np.array(rows)), share, ""


def ranked(told: Sequence[Sensitivity]) -> list[Sensitivity]:
    """The layers whose float costs least for what it saves: noise over their part of layers and multiply-adds."""
    macs = max(1, sum(one.layer.macs for one in told))
    return sorted(told, key=lambda one: -one.noise / (one.layer.macs / macs + 1 / len(told)))


def affordable(order: Sequence[Sensitivity], least: float) -> list[Sensitivity]:
    """Those, in their order, that can all be in float with at least this share of multiply-adds left in INT8."""
    macs = sum(one.layer.macs for one in order)
    found: list[Sensitivity] = []
    taken = 0
    for one in order:
        if taken + one.layer.macs <= (1 - least) * macs:
            taken += one.layer.macs
            found.append(one)
    return found
