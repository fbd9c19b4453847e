"""What a search keeps and tells: candidates that were scored, cures that were judged by their noise, and its memory."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.errors import EdgepackError
from packager.accuracy.subject import decibels

if TYPE_CHECKING:
    from packager.accuracy.metric import Score
    from packager.accuracy.paired import Drop
    from packager.accuracy.sensitivity import Sensitivity
    from packager.compress.onnx_layers import Int8Share
    from packager.recipe import Recipe

_MOST_TOLD = 200


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
        percent = None if self.drop.relative is None else round(self.drop.relative, 4)
        score = {"score": round(self.score.score, 6), "drop_points": round(self.drop.points, 4)}
        return {**told, **score, "drop_percent": percent}


@dataclasses.dataclass(frozen=True)
class Cure:
    """A change that leaves every layer in INT8, judged by the noise in the outputs for a few calibration samples.

    `idle` is one that finds nothing to act on: the model is the same, byte by byte. `why` says what failed. `harm`: less
    noise, yet more lost.
    """

    words: str
    noise: float
    kept: bool
    why: str = ""
    idle: bool = False
    harm: bool = False

    def document(self) -> dict[str, Any]:
        """For the manifest: what the cure bought."""
        told: dict[str, Any] = {"step": self.words, "kept": self.kept}
        if self.why:
            return {**told, "failed": self.why}
        more = {"nothing_to_do": self.idle, "loses_more": self.harm}
        return {
            **told,
            "sqnr_db": round(decibels(self.noise), 2),
            **{key: True for key, value in more.items() if value},
        }

    def __str__(self) -> str:
        """What it bought, in words."""
        if self.why:
            return self.why
        if self.idle:
            return "changes nothing in this model"
        after = "" if self.kept else ", but more lost: not kept" if self.harm else ", not kept"
        return f"{decibels(self.noise):.1f} dB of signal over noise{after}"


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
    unforeseen: Sequence[str] = ()  # candidates that failed as none should: told with the build


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


def failure(error: Exception) -> str:
    """Why a candidate failed, in a line: an error of edgepack's own in its words, any other with its type."""
    text = error.what if isinstance(error, EdgepackError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:_MOST_TOLD]
