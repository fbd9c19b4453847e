"""One call on several devices at once: results as they come, errors kept apart, the worst exit code at the end."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.contract.errors import EdgepackError, UsageError, to_wire
from packager.device.device import Device

if TYPE_CHECKING:
    from packager.fleet.run import Limits, Outcome

Errors = list[tuple[str, EdgepackError]]
_RETRIES = 2


@dataclasses.dataclass(frozen=True)
class FleetOptions:
    """Which devices, and how. `retries` None: a fleet's transient failures are tried again, a named device's are told."""

    groups: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    everyone: bool = False
    at_once: int = 16
    deadline: float | None = None
    retries: int | None = None
    resume: bool = False

    @property
    def chosen(self) -> bool:
        """Whether devices are chosen from the inventory, not named one by one."""
        return bool(self.groups or self.labels or self.everyone)

    def names(self, devices: Sequence[str]) -> list[str]:
        """The devices that are meant, each once. Raises UsageError for none."""
        from packager.device import inventory
        from packager.fleet.selection import select

        found = list(devices)
        if self.chosen:
            found += select(inventory.everything(), self.groups, self.labels, everyone=self.everyone)
        if not found:
            raise UsageError("no device is named", fix="name one, or --group, --label or --all", code="none-selected")
        return list(dict.fromkeys(found))

    def limits(self) -> Limits:
        """For the fleet's engine."""
        from packager.fleet.run import Limits

        retries = (_RETRIES if self.chosen else 0) if self.retries is None else self.retries
        return Limits(at_once=self.at_once, deadline=self.deadline, retries=retries)


def fleet_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--group, --label, --all, --inventory, --at-once, --deadline, --retries, --resume: one argument, `fleet`."""

    def command(*args: Any, **options: Any) -> Any:
        names = [field.name for field in dataclasses.fields(FleetOptions)]
        inventory = options.pop("inventory")
        if inventory:
            from packager.device.fleet_file import VARIABLE

            os.environ[VARIABLE] = inventory
        return function(*args, fleet=FleetOptions(**{name: options.pop(name) for name in names}), **options)

    command.__name__, command.__doc__ = function.__name__, function.__doc__
    command.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
    wrapped: Callable[..., Any] = command
    for option in (
        click.option("--resume", is_flag=True, help="Leave out the devices that the same command has done before."),
        click.option("--retries", type=click.IntRange(0, 100), help="Further tries after what may pass [a fleet: 2]."),
        click.option("--deadline", type=click.FloatRange(0.1), help="Seconds for each device, over all tries."),
        click.option("--at-once", type=click.IntRange(1, 1000), default=16, show_default=True, help="Devices at once."),
        click.option("--inventory", type=click.Path(), help="The fleet file [fleet.toml in the configuration folder]."),
        click.option("--all", "everyone", is_flag=True, help="Every device of the inventory."),
        click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Devices with all these labels."),
        click.option(
            "--group", "groups", multiple=True, help="Devices in any of these groups; --json then prints lines."
        ),
    ):
        wrapped = option(wrapped)
    return wrapped


class Work:
    """A fleet's work: its journal, and each outcome told as it comes. `key` is what makes it the same work again."""

    def __init__(
        self,
        fleet: FleetOptions,
        key: Any,
        line: Callable[[Any], str],
        document: Callable[[Any], Any],
        *,
        as_json: bool,
    ) -> None:
        from packager.fleet.journal import Journal

        self._fleet, self._line, self._document, self._json = fleet, line, document, as_json
        self._journal = Journal([key, fleet.groups, fleet.labels, fleet.everyone])
        self._counts = {"done": 0, "failed": 0, "done_before": 0}

    def left(self, names: Sequence[str]) -> list[str]:
        """The devices where it is not done yet."""
        before = self._journal.start(resume=self._fleet.resume)
        self._counts["done_before"] = sum(name in before for name in names)
        return [name for name in names if name not in before]

    def tell(self, outcome: Outcome) -> None:
        """One device is through."""
        self._counts["failed" if outcome.error else "done"] += 1
        if outcome.error is None:
            document = self._document(outcome.result)
            self._journal.add(outcome.device, document)
            told = {**document, "device": outcome.device, "tries": outcome.tries}
            click.echo(json.dumps(told, allow_nan=False) if self._json else self._line(outcome.result))
        elif self._json:
            error = {"exit_code": outcome.error.exit_code, **to_wire(outcome.error)}
            click.echo(json.dumps({"device": outcome.device, "error": error, "tries": outcome.tries}, allow_nan=False))

    def forget(self, names: Sequence[str]) -> None:
        """These were done, and are undone again."""
        for name in names:
            self._journal.add(name, None)

    def summary(self, **more: Any) -> None:
        """The last line."""
        if not self._counts["failed"] and not more.get("halted"):
            self._journal.finish()
        if self._json:
            click.echo(json.dumps({"summary": {**self._counts, **more}}))
            return
        before = f", {self._counts['done_before']} done before" if self._counts["done_before"] else ""
        click.echo(f"{self._counts['done']} devices done{before}, {self._counts['failed']} failed")


def on_each(
    addresses: Sequence[str],
    say: Callable[[str], None],
    call: Callable[[Device], Any],
    fleet: FleetOptions | None = None,
    work: Work | None = None,
) -> tuple[list[Any], Errors]:
    """The results, and the errors by device. One device runs in this thread, so that Ctrl-C reaches it at once."""
    asked = fleet or FleetOptions()
    names = asked.names(addresses) if fleet else list(dict.fromkeys(addresses))
    if len(names) == 1 and not asked.chosen and asked.deadline is None and not asked.retries:
        with Device(names[0], progress=say) as device:
            return [call(device)], []
    from packager.fleet.run import Fleet

    done: dict[str, Any] = {}
    errors: Errors = []
    for outcome in Fleet(opener(say), call, asked.limits()).run(work.left(names) if work else names):
        if work:
            work.tell(outcome)
        if outcome.error is not None:
            errors.append((outcome.device, outcome.error))
        else:
            done[outcome.device] = outcome.result
    if work:
        work.summary()
    return [done[name] for name in names if name in done], errors  # in the order asked for, whoever was first


def opener(say: Callable[[str], None]) -> Callable[[str], Device]:
    """Opens devices whose talk begins with their name."""
    return lambda name: Device(name, progress=lambda message: say(f"{name}: {message}"))


def digest_of(bundle: str) -> str:
    """The bundle's digest: the same file pushed again is the same work."""
    from agent.contract.archive import BundleReader

    with BundleReader(Path(bundle)) as reader:
        return reader.digest


def finish(errors: Sequence[tuple[str, EdgepackError]]) -> int:
    """Tells the errors on stderr; the exit code: a device that failed for good before one worth another try."""
    for address, error in errors:
        click.echo(f"edgepack: {address}: {error}", err=True)
    codes = [error.exit_code for _, error in errors]
    return min(codes, default=0)


def errors_document(errors: Sequence[tuple[str, EdgepackError]]) -> list[dict[str, Any]]:
    """The errors for --json."""
    return [{"device": address, "exit_code": error.exit_code, **to_wire(error)} for address, error in errors]
