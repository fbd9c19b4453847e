"""How much is pruned when: linear, cubic (Zhu and Gupta, "To prune, or not to prune", 2017) or all at once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from agent.contract.errors import UsageError, unknown_name

SCHEDULES = ("one-shot", "linear", "cubic")


def sparsities(goal: float, schedule: str | Sequence[float] = "one-shot", steps: int = 1) -> list[float]:
    """The share that is pruned after each step (0..1), rising, the last one `goal`.

    `schedule` may be the shares themselves. Raises UsageError for shares outside 0..1, or not rising.
    """
    if not isinstance(schedule, str):
        return _given(schedule)
    if schedule not in SCHEDULES:
        raise unknown_name("schedule", schedule, SCHEDULES)
    _check(goal, "sparsity")
    if steps < 1:
        raise UsageError(f"{steps} pruning steps", expected="1 at least", code="schedule")
    if schedule == "one-shot":
        return [goal]
    done = [(number + 1) / steps for number in range(steps)]
    return [goal * (share if schedule == "linear" else 1 - (1 - share) ** 3) for share in done]


def _given(shares: Sequence[float]) -> list[float]:
    found = [float(share) for share in shares]
    for index, share in enumerate(found):
        _check(share, f"schedule[{index}]")
    if not found or any(later <= sooner for sooner, later in itertools.pairwise(found)):
        raise UsageError(
            f"the schedule {found} does not rise", expected="rising shares, as [0.3, 0.5, 0.8]", code="schedule"
        )
    return found


def _check(share: float, what: str) -> None:
    if not 0 < share < 1:
        hint = f"for {share:g} % write {share / 100:g}" if 1 < share <= 100 else ""  # noqa: PLR2004 - per cent
        raise UsageError(
            f"{what}: {share:g} is {share:.0%}",
            expected="a share above 0 and below 1: nothing is left of a layer at 100 %",
            fix=hint,
            code="schedule",
        )
