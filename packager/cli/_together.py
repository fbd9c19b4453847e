"""What a verb does on one device, or on many: one document for one, lines for a fleet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from packager.cli._fleet import FleetOptions, Work, finish, on_each
from packager.cli._show import print_json, progress

if TYPE_CHECKING:
    from packager.device.device import Device

Told = dict[str, Any]


def together(
    devices: Sequence[str],
    fleet: FleetOptions,
    key: Any,
    call: Callable[[Device], Told],
    show: Callable[[Told], None],
    line: Callable[[Told], str],
    code: Callable[[Told], int] = lambda _: 0,
    *,
    as_json: bool,
) -> int:
    """The exit code, the worst of all. `call`'s result is told with the device's name: by `show` for a single device that was
    named, by `line` for those of a fleet. `key` is what makes it the same work again, for --resume. `code` judges a result.
    """

    def named(device: Device) -> Told:
        return {"device": device.address, **call(device)}

    work = None
    if fleet.chosen or len(set(devices)) > 1:
        work = Work(fleet, [key, list(devices)], line, lambda told: told, as_json=as_json)
    with progress() as say:
        results, errors = on_each(devices, say, named, fleet, work)
    for told in results if work is None else ():
        if as_json:
            print_json(told)
        else:
            show(told)
    return finish(errors) or max((code(told) for told in results), default=0)
