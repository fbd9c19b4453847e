"""One call on several devices at once: results as they come, errors kept apart, the worst exit code at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from agent.contract.errors import EdgepackError
from packager.device.device import Device

_AT_ONCE = 16


def on_each(
    addresses: Sequence[str], say: Callable[[str], None], call: Callable[[Device], Any]
) -> tuple[list[Any], list[tuple[str, EdgepackError]]]:
    """The results, and the errors by device. One device runs in this thread, so that Ctrl-C reaches it at once."""
    results: list[Any] = []
    errors: list[tuple[str, EdgepackError]] = []
    connected: list[Device] = []

    def one(address: str) -> Any:
        prefix = f"{address}: " if len(addresses) > 1 else ""
        with Device(address, progress=lambda message: say(prefix + message)) as device:
            connected.append(device)
            return call(device)

    if len(addresses) == 1:
        return [one(addresses[0])], []
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        futures = {address: pool.submit(one, address) for address in dict.fromkeys(addresses)}
        try:
            for address, future in futures.items():
                try:
                    results.append(future.result())
                except EdgepackError as error:
                    errors.append((address, error))
        except KeyboardInterrupt:
            # The other threads do not see it: each device is told, and its own work ends in good order.
            pool.shutdown(wait=False, cancel_futures=True)
            for device in connected:
                device.interrupt()
            raise
    return results, errors


def finish(errors: Sequence[tuple[str, EdgepackError]]) -> int:
    """Tells the errors on stderr; the exit code: a device that failed for good before one worth another try."""
    for address, error in errors:
        click.echo(f"edgepack: {address}: {error}", err=True)
    codes = [error.exit_code for _, error in errors]
    return min(codes, default=0)


def errors_document(errors: Sequence[tuple[str, EdgepackError]]) -> list[dict[str, Any]]:
    """The errors for --json."""
    from agent.contract.errors import to_wire

    return [{"device": address, "exit_code": error.exit_code, **to_wire(error)} for address, error in errors]
