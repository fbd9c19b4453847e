"""A device without the bundle's runtime: `bench` offers to bring it, to a person at a terminal or as `--provision` says."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from agent.contract.errors import DeviceError, EdgepackError

if TYPE_CHECKING:
    from packager.device.device import Device

Results = tuple[list[Any], list[tuple[str, EdgepackError]]]


def can_ask() -> bool:
    """Whether somebody is there to answer: never in a script, where a question would wait for ever."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def bringing(device: Device, bundle: str, work: Callable[[], Any], *, bring: bool) -> Any:
    """The result of `work`; with `bring` a missing runtime is provisioned, and the work tried once more."""
    from packager.device.provision import missing_runtime, provision

    try:
        return work()
    except DeviceError as error:
        runtime = missing_runtime(error, bundle) if bring else None
        if runtime is None:
            raise
        provision(device, (runtime,))
    return work()


def with_offers(devices: Sequence[str], bundle: str, call: Callable[[Sequence[str], bool], Results]) -> Results:
    """`call(devices, bring)`; devices that lacked the runtime are called again, provisioned, where the user says yes."""
    try:
        results, errors = call(devices, False)
    except DeviceError as error:  # a single device raises
        if not _accepted(devices[0], bundle, error):
            raise
        return call(devices, True)
    accepted = [name for name, error in errors if _accepted(name, bundle, error)]
    if not accepted:
        return results, errors
    kept = [(name, error) for name, error in errors if name not in accepted]
    try:
        more, failed = call(accepted, True)
    except EdgepackError as error:
        more, failed = [], [(accepted[0], error)]
    return [*results, *more], [*kept, *failed]


def _accepted(name: str, bundle: str, error: EdgepackError) -> bool:
    from packager.device.provision import missing_runtime

    runtime = missing_runtime(error, bundle)
    if runtime is None or not can_ask():
        return False
    click.echo(f"{name}: {error.what}", err=True)
    return click.confirm(f"Bring {runtime} to {name}, into edgepack's own folder there", err=True)
