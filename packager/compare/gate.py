"""Gates of a comparison: `slower:5%,size:0%`. Each is passed, failed, or, for want of certainty, undecided."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from agent.contract.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from packager.compare.ratio import Interval

PASSED, FAILED, UNDECIDED = "passed", "failed", "undecided"
_KINDS = ("slower", "size", "accuracy")
_PART = re.compile(r"(?P<kind>[a-z]+):(?P<number>\d+(?:\.\d+)?)(?P<percent>%?)", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Gate:
    """`limit` is a share for slower and size, points (0.01 of a score) for accuracy."""

    kind: str
    limit: float
    text: str


@dataclasses.dataclass(frozen=True)
class GateResult:
    """One gate and how it came out, in words."""

    gate: str
    outcome: str
    message: str


def parse(spec: str) -> list[Gate]:
    """The gates of `slower:5%,accuracy:1,size:0%`. Raises UsageError."""
    return [_parse_one(part.strip()) for part in spec.split(",")]


def _parse_one(part: str) -> Gate:
    match = _PART.fullmatch(part)
    if match is None:
        raise UsageError(f"not a gate: {part!r}", expected="as in slower:5%,accuracy:1,size:0%", code="gate")
    kind = match["kind"]
    if kind not in _KINDS:
        raise unknown_name("gate", kind, _KINDS)
    if (kind != "accuracy") != bool(match["percent"]):
        expected = "accuracy:1 (points)" if kind == "accuracy" else f"{kind}:5% (a share)"
        raise UsageError(f"the gate {part!r} has the wrong unit", expected=expected, code="gate")
    number = float(match["number"])
    return Gate(kind, number if kind == "accuracy" else number / 100, part)


def check_measured(gates: list[Gate], *, scores: bool = False) -> None:
    """Before anything is measured: raises UsageError for a gate that nothing will be measured for."""
    if not scores and any(gate.kind == "accuracy" for gate in gates):
        raise _unmeasured()


def judge(
    gates: list[Gate], ratio: Interval, sizes: tuple[int, int], scores: tuple[float, float] | None = None
) -> list[GateResult]:
    """`sizes` and `scores` are A's and B's; scores lie between 0 and 1. `slower` fails only when the whole interval lies
    beyond its limit, and passes only when none of it does. Raises UsageError for `accuracy` without scores.
    """
    return [_judge_one(gate, ratio, sizes, scores) for gate in gates]


def _judge_one(gate: Gate, ratio: Interval, sizes: tuple[int, int], scores: tuple[float, float] | None) -> GateResult:
    if gate.kind == "slower":
        bound = 1 + gate.limit
        outcome = FAILED if ratio.low > bound else PASSED if ratio.high <= bound else UNDECIDED
        return GateResult(gate.text, outcome, f"B takes {ratio.low:.3f} to {ratio.high:.3f} times A's time")
    if gate.kind == "size":
        share = sizes[1] / sizes[0]
        outcome = PASSED if share <= 1 + gate.limit else FAILED
        return GateResult(gate.text, outcome, f"B's model has {share:.3f} times A's size")
    if scores is None:
        raise _unmeasured()
    lost = (scores[0] - scores[1]) * 100
    outcome = PASSED if lost <= gate.limit + 1e-9 else FAILED
    return GateResult(gate.text, outcome, f"B loses {lost:.2f} points")


def _unmeasured() -> UsageError:
    return UsageError(
        "a bundle holds no accuracy: the gate 'accuracy' cannot be judged",
        expected="two bundles built with --eval",
        fix="build them with --eval DATA, or leave the gate out",
        code="gate-unmeasured",
    )
