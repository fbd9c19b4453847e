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
from packager.compress.onnx_layers import Int8Share, Layer, share_of

if TYPE_CHECKING:
    from packager.accuracy.dataset import EvalSet
    from packager.accuracy.metric import Metric
    from packager.accuracy.subject import Lowered, Subject
    from packager.recipe import Recipe

MARGIN = 0.5  # of the budget: samples that the search never saw lose a little more
LEAST_MACS = 0.8
MOST_FACTOR = 3  # evaluations, against those of one bisection


@dataclasses.dataclass(frozen=True)
class Trial:
    """One candidate that was scored. `spent` is the share of the budget its drop takes."""

    words: str
    recipe: Recipe
    score: Score | None
    drop: Drop | None
    spent: float
    share: Int8Share
    why: str = ""

    def document(self) -> dict[str, Any]:
        """For the manifest: what the step bought."""
        told: dict[str, Any] = {"step": self.words, "int8_share": self.share.document()}
        if self.score is None or self.drop is None:
            return {**told, "failed": self.why}
        return {**told, "score": round(self.score.score, 6), "drop_points": round(self.drop.points, 4)}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The best candidate, all that were tried, and what the layers cost (empty where the cures sufficed)."""

    best: Trial
    trials: Sequence[Trial]
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

    @property
    def late(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self._end

    def run(self, base: Recipe, levers: Sequence[tuple[str, dict[str, Any]]]) -> Outcome:
        """The first candidate within half the budget; else the best within it; else the best there is."""
        start = time.monotonic()
        best = self.attempt("as the recipe says", base)
        for words, change in levers:
            if best.spent <= MARGIN or self.late:
                break
            tried = self.attempt(words, dataclasses.replace(best.recipe, **change))
            best = tried if tried.spent < best.spent else best
        told: list[Sensitivity] = []
        if best.spent > MARGIN and not self.late and len(self.layers) > 1:
            told = self.sensitivities(best.recipe)
            if len(told) == len(self.layers):
                self._bisect(best.recipe, told)
        found = self._choose()
        met = found.spent <= 1
        return Outcome(found, self.trials, told, met, self.late, time.monotonic() - start)

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
        spent = math.inf if drop is None else self.budget.spent(drop)
        trial = Trial(words, recipe, score, drop, spent, share, why)
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

    def _bisect(self, recipe: Recipe, told: Sequence[Sensitivity]) -> None:
        """The fewest of the worst layers in float: doubled until it suffices, halved until it is the fewest, then thinned."""
        order = ranked(told)
        most = MOST_FACTOR * max(1, math.ceil(math.log2(len(order)))) + len(self.trials)

        def enough(count: int) -> bool:
            names = tuple(one.layer.name for one in order[:count])
            words = f"{count} layer{'s' if count > 1 else ''} in float"
            return self.attempt(words, dataclasses.replace(recipe, exclude=(*recipe.exclude, *names))).spent <= MARGIN

        low, high = 0, 1
        while not enough(high):
            if self.late or high >= len(order) - 1 or len(self.trials) >= most:
                return
            low, high = high, min(2 * high, len(order) - 1)
        while high - low > 1 and not self.late and len(self.trials) < most:
            middle = (low + high) // 2
            low, high = (low, middle) if enough(middle) else (middle, high)
        self._thin(recipe, [one.layer for one in order[:high]], most)

    def _thin(self, recipe: Recipe, kept: list[Layer], most: int) -> None:
        """Takes layers back into INT8, the most multiply-adds first, where the budget bears it."""
        for layer in sorted(kept, key=lambda one: -one.macs):
            if self.late or len(self.trials) >= most or len(kept) == 1:
                return
            rest = [one for one in kept if one.name != layer.name]
            exclude = (*recipe.exclude, *(one.name for one in rest))
            if self.attempt(f"{layer.name} back in INT8", dataclasses.replace(recipe, exclude=exclude)).spent <= MARGIN:
                kept = rest

    def _choose(self) -> Trial:
        """Within half the budget the most INT8; where that leaves too little in INT8, within the whole budget."""
        safe = [one for one in self.trials if one.spent <= MARGIN]
        within = [one for one in self.trials if one.spent <= 1]
        best = max(safe, key=lambda one: one.share.macs, default=None)
        if best is not None and best.share.macs >= LEAST_MACS:
            return best
        wide = [one for one in within if one.share.macs >= LEAST_MACS]
        if wide:
            return min(wide, key=lambda one: one.spent)
        if within:
            return max(within, key=lambda one: one.share.macs)
        return min(self.trials, key=lambda one: one.spent)

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
