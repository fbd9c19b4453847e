"""The search for INT8 that keeps its accuracy: cheap cures first, then the fewest layers left in float.

Noise in the outputs for a few calibration samples is cheap and smooth: by it cures are chosen, layers ranked and mixed
precisions ordered. Scores on the evaluation set are dear and jump: they confirm a cure, and are bisected for along that order.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from agent.contract import codec
from agent.contract.errors import ConvertError, EdgepackError
from packager.accuracy.hunt import hunt
from packager.accuracy.ladder import Rung, affordable, first_enough, foreseen, front, ranked
from packager.accuracy.metric import Score
from packager.accuracy.paired import Budget, paired_drop
from packager.accuracy.screen import Screen
from packager.accuracy.sensitivity import Sensitivity, measure_group
from packager.accuracy.subject import PROBES
from packager.accuracy.trials import Cure, Memory, Outcome, Trial, failure
from packager.compress.onnx_layers import Int8Share, Layer, share_of

if TYPE_CHECKING:
    from packager.accuracy.dataset import EvalSet
    from packager.accuracy.metric import Metric
    from packager.accuracy.subject import Lowered, Subject
    from packager.recipe import Recipe

LEAST_MACS = 0.8
MOST_FACTOR = 3  # evaluations, against those of one bisection
_PAYS = 0.95  # of the noise before: a cure that leaves more has bought nothing
# Bias correction takes a mean error away, whatever a few samples say of it: kept unless a decibel is lost. Cures after it
# count on that, as clipping does, whose own shifts would come on top.
_EVEN = 1.26
_RUIN = 100  # times the noise of the best cure: what leaves that has changed the function, as a ReLU without its 6 may
_FEW_LAYERS = 8  # up to here a bisection is no measure of what a search may take
_LEAST_PROBES = 4
_RANKED_ON = 8  # probes: enough for an order, which scores judge afterwards
_CURING = 0.4  # of the time that is left when the recipe itself is scored: the cures that come later are left out
_PER_ROUND = 0.15  # of the time: what measuring every layer once may take
_RANKING = 0.5  # of the time that is left when the cures have been tried; the rest is for scores
_AT_ONCE = 0.6  # of the evaluations: when all cures at once are not tried any more
_SURE = 1.4  # standard errors: one sample of many that flips is no proof that a cure does harm


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
        self.screen = Screen(data, metric, original, budget)
        self.layers, self.memory, self.progress = layers, memory, progress
        self._seconds = 60 * minutes
        self._end = time.monotonic() + self._seconds
        subject.probes = memory.get("probes") or PROBES
        self.trials: list[Trial] = []
        self.cures: list[Cure] = []
        self.unforeseen: list[str] = []
        self._noises: dict[str, float] = {}  # by the model's digest: two recipes may make the same

    @property
    def late(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self._end

    def run(self, base: Recipe, levers: Sequence[tuple[str, dict[str, Any]]]) -> Outcome:
        """The first candidate that is safely within the budget; else the best within it; else the best there is."""
        start = time.monotonic()
        told: list[Sensitivity] = []
        first = self.attempt("as the recipe says", base)
        if not first.safe and not self.late:
            best = self._cured(first, levers)
            if not best.safe and not self.late and len(self.layers) > 1:
                told = self._mix(base, best.recipe)
        found = self._choose()
        seconds = time.monotonic() - start
        met = found.spent <= 1
        return Outcome(found, self.trials, self.cures, told, met, self.late, seconds, self.unforeseen)

    def _cured(self, first: Trial, levers: Sequence[tuple[str, dict[str, Any]]]) -> Trial:
        """The recipe with the changes that lower the noise, confirmed by their scores: less noise that loses more has cured
        the wrong thing. Each by its own while there are evaluations for that, then all the others by one. Ends with the first
        that is safe.
        """
        best, reached = first, self._probe("as the recipe says", first.recipe)
        names: dict[str, str] = {}
        end = time.monotonic() + _CURING * (self._end - time.monotonic())
        for words, change in levers:
            if time.monotonic() > end:
                self.progress(f"no time for {words}")
                break
            rung = self._probe(words, dataclasses.replace(reached.recipe, **change))
            idle = bool(reached.digest) and rung.digest == reached.digest
            pays = _EVEN if set(change) == {"bias_correction"} else _PAYS
            kept, harm = not idle and rung.noise < pays * reached.noise, False
            if kept:
                together = {**names, next(iter(change)): words}  # a second method takes the first one's place
                if not self._spent(_CURING):
                    trial = self.attempt(" + ".join(together.values()), rung.recipe)
                    harm = _worse(trial, best, rung.noise / reached.noise)
                    best = best if harm else trial
                if not harm:
                    reached, names = rung, together
            self.cures.append(Cure(words, rung.noise, kept and not harm, rung.why, idle, harm))
            self.progress(f"{words}: {self.cures[-1]}")
            if best.safe:
                return best
        if reached.recipe != best.recipe:
            trial = self.attempt(" + ".join(names.values()), reached.recipe)
            best = best if _worse(trial, best, 1.0) else trial
        return best if best.safe else self._all_at_once(best, levers)

    def _all_at_once(self, best: Trial, levers: Sequence[tuple[str, dict[str, Any]]]) -> Trial:
        """The best of what there is and of all cures that change this model at all, with each range method that was kept:
        where the noise is large, cures need one another, and what one does alone says little.
        """
        told = {cure.words: cure for cure in self.cures if not (cure.why or cure.idle)}
        ruin = _RUIN * min((cure.noise for cure in told.values()), default=0.0)
        told = {words: cure for words, cure in told.items() if cure.noise <= ruin}
        switches = [change for words, change in levers if words in told and "method" not in change]
        methods = [
            (words, change) for words, change in levers if "method" in change and words in told and told[words].kept
        ]
        recipe = best.recipe
        for change in switches:
            recipe = dataclasses.replace(recipe, **change)
        for words, change in methods[::-1] or [("", {})]:
            together = dataclasses.replace(recipe, **change)
            if together in [one.recipe for one in self.trials] or self._spent(_AT_ONCE):
                continue
            trial = self.attempt("all cures at once" + (f", {words}" if words else ""), together)
            best = best if trial.score is None or _worse(trial, best, 1.0) else trial
            if best.safe:
                break
        return best

    def _probe(self, words: str, recipe: Recipe) -> Rung:
        key = "probe " + json.dumps(codec.encode(recipe), sort_keys=True)
        kept = self.memory.get(key)
        if kept is None:
            self.progress(f"noise of: {words}")
            try:
                lowered = self.subject.draft(recipe)
                share = self.share(lowered)
                digest = lowered.artifact.digest
                if digest not in self._noises:
                    self._noises[digest] = self.subject.noise(lowered)[0]
                kept = [self._noises[digest], share.macs, share.weights, "", digest]
            except Exception as error:  # noqa: BLE001 - told in the candidate's row; see _failed
                kept = [1e30, 0.0, 0.0, self._failed(words, error), ""]
            self._keep(key, kept, kept[3])
        return Rung(words, recipe, kept[0], Int8Share(kept[1], kept[2]), kept[3], kept[4])

    def _failed(self, words: str, error: Exception) -> str:
        """Why a candidate failed. A search of many minutes is not lost by one of its candidates, whatever was wrong with it:
        it is a row that failed, and what none should fail with is told with the build too.

        Raises the error where the fault is the machine's, or the recipe's as the user gave it: no other candidate would do.
        """
        own = isinstance(error, EdgepackError)
        spoilt = isinstance(error, EdgepackError) and error.code.startswith("metric")  # by this candidate's outputs
        if isinstance(error, (OSError, MemoryError)) or not (self.trials or spoilt):
            raise error
        if not own:
            self.unforeseen.append(f"{words}: {failure(error)}")
        return failure(error)

    def _keep(self, key: str, value: Any, why: str) -> None:
        """What failed as none should is tried again by the search that goes on from here."""
        if not any(one.endswith(f": {why}") for one in self.unforeseen if why):
            self.memory.keep(key, value)

    def _size_probes(self, seconds: float) -> None:
        """As many calibration samples as measuring every layer once may take; `seconds` is a sample's time."""
        count = self.memory.get("probes")
        if count is None:
            allowed = _PER_ROUND * self._seconds / max(1, len(self.layers))
            count = max(_LEAST_PROBES, min(PROBES, int(allowed / max(seconds, 1e-6))))
            self.memory.keep("probes", count)
        self.subject.probes = count

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
                score, share, why = None, Int8Share(0.0, 0.0), failure(error)
            except Exception as error:  # noqa: BLE001 - told in the candidate's row; see _failed
                score, share, why = None, Int8Share(0.0, 0.0), self._failed(words, error)
            self._keep(key, self._kept(score, share, why), why)
        drop = None if score is None else self.screen.drop(score)
        spent, risk = (math.inf, math.inf) if drop is None else (self.budget.spent(drop), self.budget.risk(drop))
        trial = Trial(words, recipe, score, drop, spent, risk, share, why)
        self.trials.append(trial)
        on = f" on {score.n} samples" if score is not None and score.n < len(self.data) else ""
        lost = (
            why if drop is None else f"{self.budget.told(drop)} lost{on}, {share.macs:.1%} of the multiply-adds in INT8"
        )
        self.progress(f"{words}: {lost}")
        return trial

    def sensitivities(self, recipe: Recipe, end: float) -> list[Sensitivity]:
        """What each layer costs, by the noise on a few calibration samples; as far as the time until `end` allows."""
        return hunt(self.layers, lambda group: self._group(recipe, group), lambda: time.monotonic() >= end)

    def _group(self, recipe: Recipe, group: Sequence[Layer]) -> Sensitivity:
        names = [one.name for one in group]
        key = "layers " + json.dumps([names, codec.encode(recipe)], sort_keys=True)
        kept = self.memory.get(key)
        if kept is not None:
            return Sensitivity(group[0], kept[0], kept[1], kept[2], None, kept[3])
        more = f" and the {len(group) - 1} after it" if len(group) > 1 else ""
        self.progress(f"sensitivity of {names[0]}{more}")
        try:
            one = measure_group(self.subject, recipe, group, self.layers, most=_RANKED_ON)
        except Exception as error:  # noqa: BLE001 - told in the layer's row; see _failed
            one = Sensitivity(group[0], 1.0, "", 1.0, None, self._failed(f"{names[0]}{more} in INT8 alone", error))
        self._keep(key, [one.noise, one.band, one.band_noise, one.broken], one.broken)
        return one

    def _spent(self, share: float = 1.0) -> bool:
        """Whether the time is up, or this share of the evaluations that a search may take."""
        most = MOST_FACTOR * math.ceil(math.log2(max(_FEW_LAYERS, len(self.layers))))
        return self.late or len(self.trials) >= share * most

    def _mix(self, base: Recipe, cured: Recipe) -> list[Sensitivity]:
        """Layers in float: first those that leave enough multiply-adds in INT8; others only where nothing else keeps the
        budget. The layers' costs.

        Equalisation changes every layer, and takes a ReLU6 for a ReLU: few layers in float without it may be better than
        many with it. Both are looked at, and the better at each share of INT8 is scored.
        """
        roots = [cured]
        if cured.equalize != base.equalize:
            roots.append(dataclasses.replace(cured, equalize=base.equalize))
        now = time.monotonic()
        each = _RANKING * (self._end - now) / len(roots)
        total = sum(one.macs for one in self.layers)
        ways = []
        for place, root in enumerate(roots):
            whole = self._probe("all in INT8", root)
            told = [] if whole.why else self.sensitivities(root, now + (place + 1) * each)
            if any(one.noise for one in told):
                order = ranked(told)
                wide = _paying(whole, foreseen(whole, told, affordable(order, LEAST_MACS, total)))
                deep = _paying(whole, foreseen(whole, told, order[:-1]))
                deep = [one for one in deep if one.share.macs < LEAST_MACS]
                ways.append((told, wide, deep))
        if not ways:
            return []
        ladder = front([rung for _, rungs, _ in ways for rung in rungs])
        if self._bisect(ladder, lambda trial: trial.safe) is None and not any(one.spent <= 1 for one in self.trials):
            _, _, deep = min(ways, key=lambda way: min((rung.noise for rung in way[1]), default=math.inf))
            self._bisect(deep, lambda trial: trial.spent <= 1)
        return ways[0][0]

    def _bisect(self, ladder: Sequence[Rung], enough: Callable[[Trial], bool]) -> int | None:
        """The first rung whose score is enough."""

        def score(place: int) -> bool | None:
            if self._spent():
                return None
            return enough(self.attempt(ladder[place].words, ladder[place].recipe))

        return first_enough(len(ladder), score)

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
        start = time.monotonic()
        score = self.screen.score(lambda data: self.subject.outputs(lowered, data))
        self._size_probes((time.monotonic() - start) / max(1, score.n))
        return score, self.share(lowered)

    def share(self, lowered: Lowered) -> Int8Share:
        """What of the layers is in INT8 in this model."""
        target: Any = self.subject.target
        return share_of(self.layers, target.int8_layers(lowered.artifact, self.layers))

    def _kept(self, score: Score | None, share: Int8Share, why: str) -> dict[str, Any]:
        told: dict[str, Any] = {"share": [share.macs, share.weights], "why": why}
        if score is not None:
            rows = None if score.rows is None else [float(one) for one in score.rows]
            draws = None if score.draws is None else [float(one) for one in score.draws]
            told["score"] = [score.score, score.n, score.interval, score.method, rows, draws]
        return told

    def _recalled(self, kept: dict[str, Any]) -> tuple[Score | None, Int8Share, str]:
        import numpy as np

        share = Int8Share(*kept["share"])
        if "score" not in kept:
            return None, share, kept["why"]
        value, n, interval, method, *lists = kept["score"]
        ends = None if interval is None else (interval[0], interval[1])
        rows, draws = (None if one is None else np.array(one) for one in lists)
        return Score(self.metric.name, value, n, ends, method, rows, draws), share, ""


def _paying(whole: Rung, rungs: Sequence[Rung]) -> list[Rung]:
    """Those that leave less noise than all in INT8 has: of the others a score that is better is chance."""
    return [one for one in rungs if one.noise < _PAYS * whole.noise]


def _worse(trial: Trial, best: Trial, part: float) -> bool:
    """Whether it loses more than the best so far; where both were scored on the same samples, more than the `part` of the
    noise that it leaves lets expect, by more than chance.
    """
    if trial.score is None or best.score is None or best.drop is None:
        return trial.score is None
    if trial.score.n == best.score.n:
        more = paired_drop(best.score, trial.score)
        if more.error is not None:
            hoped = max(0.0, 1 - part) * max(0.0, best.drop.points)
            return more.points + hoped > _SURE * more.error
    return trial.spent > best.spent
