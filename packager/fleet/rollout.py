"""A roll-out in stages: a few devices first; when too many of a stage are not well, the stage goes back, and it ends."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from agent.contract.errors import BudgetError, DeviceError, EdgepackError, UsageError
from packager.fleet.run import Fleet, Limits, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from packager.device.device import Device

_PERCENT = 100.0


@dataclasses.dataclass(frozen=True)
class Stage:
    """How a stage ended. `rolled_back` are those that have their old bundle again, `stuck` those where that failed."""

    number: int
    devices: int
    failed: int
    halted: bool
    rolled_back: tuple[str, ...] = ()
    stuck: tuple[tuple[str, EdgepackError], ...] = ()


@dataclasses.dataclass(frozen=True)
class Health:
    """What a device must show after the golden check, which every activation includes: p50 within `budget_ms`."""

    slot: str
    bundle: str
    budget_ms: float | None = None
    seconds: float = 1.0


def parse_stages(text: str, count: int) -> list[int]:
    """How many of `count` devices have been served after each stage: "1,10%,100%" of 200 is [1, 20, 200].

    Raises UsageError, code "bad-stages". The last stage is always all of them.
    """
    ends: list[int] = []
    for word in text.split(","):
        word_ = word.strip()
        try:
            value = float(word_.removesuffix("%"))
        except ValueError as error:
            raise _bad_stages(text) from error
        if value <= 0 or not math.isfinite(value) or (not word_.endswith("%") and value != int(value)):
            raise _bad_stages(text)
        end = math.ceil(count * value / _PERCENT - 1e-9) if word_.endswith("%") else int(value)
        end = min(count, max(1, end))
        if ends and end < ends[-1]:
            raise _bad_stages(text)
        if not ends or end > ends[-1]:
            ends.append(end)
    if not ends or ends[-1] < count:
        ends.append(count)
    return ends


def parse_share(text: str) -> float:
    """A share between 0 and 1: "2%" is 0.02. Raises UsageError, code "bad-share"."""
    try:
        share = float(text.strip().removesuffix("%")) / _PERCENT
    except ValueError as error:
        raise _bad_share(text) from error
    if not text.strip().endswith("%") or not 0 <= share <= 1:
        raise _bad_share(text)
    return share


def _bad_share(text: str) -> UsageError:
    return UsageError(f"not a share: {text!r}", expected="a percentage, such as 2%", code="bad-share")


def _bad_stages(text: str) -> UsageError:
    expected = "numbers of devices or percentages, none smaller than the one before, such as 1,10%,100%"
    return UsageError(f"not stages: {text!r}", expected=expected, code="bad-stages")


class Rollout:
    """Puts a bundle into a slot, stage by stage. `put` pushes and activates it, and tells what `Device.push` tells."""

    def __init__(
        self, open_: Callable[[str], Device], put: Callable[[Device], Any], health: Health, limits: Limits
    ) -> None:
        self._open, self._put, self._health, self._limits = open_, put, health, limits

    def run(self, names: Sequence[str], ends: Sequence[int], halt_on: float) -> Iterator[Outcome | Stage]:
        """Each device as it comes, and each stage. After a stage where more than `halt_on` failed nothing goes on."""
        begin = 0
        for number, end in enumerate(ends, 1):
            some, begin = names[begin:end], end
            if not some:
                continue
            switched, failed = {}, 0
            for outcome in Fleet(self._open, self._serve, self._limits).run(some):
                failed += outcome.error is not None
                if outcome.error is None and _switched(outcome.result):
                    switched[outcome.device] = str(outcome.result["bundle"])
                yield outcome
            halted = failed / len(some) > halt_on
            back, stuck = self._back(switched) if halted else ([], [])
            yield Stage(number, len(some), failed, halted, tuple(back), tuple(stuck))
            if halted:
                return

    def _serve(self, device: Device) -> Any:
        result = self._put(device)
        if self._health.budget_ms is None:
            return result
        try:
            return {**result, "p50_ms": self._within(device, self._health.budget_ms)}
        except EdgepackError:
            if _switched(result):
                undo(device, self._health.slot, result["bundle"])
            raise

    def _within(self, device: Device, budget_ms: float) -> float:
        p50 = self._latency(device)
        if p50 > budget_ms:
            raise BudgetError(
                f"p50 is {p50:.3f} ms on this device; its slot is again as it was before",
                where=device.address,
                expected=f"at most {budget_ms:g} ms",
                code="latency",
            )
        return p50

    def _latency(self, device: Device) -> float:
        from packager.results.document import latency

        numbers = latency(device.bench(self._health.bundle, seconds=self._health.seconds, rounds=1))
        p50 = numbers.get("p50_ms")
        if not isinstance(p50, float):
            raise DeviceError("the device gave no latency", where=device.address, code="no-latency")
        return p50

    def _back(self, switched: Mapping[str, str]) -> tuple[list[str], list[tuple[str, EdgepackError]]]:
        back, stuck = [], []

        def call(device: Device) -> None:
            undo(device, self._health.slot, switched[device.address])

        for outcome in Fleet(self._open, call, self._limits).run(switched):
            if outcome.error is None:
                back.append(outcome.device)
            else:
                stuck.append((outcome.device, outcome.error))
        return sorted(back), sorted(stuck, key=lambda one: one[0])


def put(device: Device, bundle: str, slot: str) -> dict[str, Any]:
    """Pushes the bundle with its signatures and activates it, which checks it on the device: digest, signature, features,
    golden outputs. What `Device.push` tells, with `activated`.
    """
    from packager.device.push import PushOptions

    return dict(device.push(bundle, PushOptions(slot=slot)))


def _switched(result: dict[str, Any]) -> bool:
    """Whether the device ran something else before."""
    done = result.get("activated")
    return isinstance(done, dict) and done.get("replaced") != result["bundle"]


def undo(device: Device, slot: str, bundle: str) -> None:
    """The slot has again what it had before `bundle`, which may be nothing; tried again after a lost link, it stays so."""
    device.rollback(slot, leaving=bundle, emptying=True)
