"""Measure a bundle on devices: right? how fast? how big?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from packager.cli import _complete
from packager.cli._show import json_option, print_json, progress

if TYPE_CHECKING:
    from agent.contract.report import Report
    from packager.device.device import Device


@click.command()
@click.argument("bundle")
@click.argument("devices", nargs=-1, required=True, shell_complete=_complete.devices)
@click.option("--threads", type=click.IntRange(0, 1024), default=0, help="Threads of the runtime [its own default].")
@click.option(
    "--seconds",
    type=click.FloatRange(0.01, 86400),
    help="Time measured, over all rounds [3; an emulated device that counts: 20 inferences].",
)
@click.option(
    "--runs", type=click.IntRange(1, 2_000_000), help="Exactly so many timed inferences, instead of --seconds."
)
@click.option(
    "--rounds",
    type=click.IntRange(1, 1000),
    help="Fresh processes to measure in [3; 2 where instructions are counted].",
)
@click.option(
    "--provider",
    default="",
    help="Execution provider (cpu, cuda, tensorrt, xnnpack ...); failing to use it is an error.",
)
@click.option(
    "--lock-clocks",
    is_flag=True,
    help="A Jetson's clocks at their highest while measuring (jetson_clocks, needs root), given back afterwards.",
)
@json_option
def command(bundle: str, devices: tuple[str, ...], *, as_json: bool, **options: Any) -> int:
    """Push BUNDLE where it is missing, check its golden outputs on the device's own kernels, then measure.

    Exit code 6 when a device does not compute what the original model computes.
    """
    from agent.contract.errors import BudgetError
    from packager.cli._fleet import errors_document, finish, on_each
    from packager.cli._report import show_reports
    from packager.results.document import report_document, require_parity
    from packager.results.store import ResultStore

    store = ResultStore()
    chosen = {key: value for key, value in options.items() if value is not None}

    def measure(device: Device) -> tuple[str, Report, int]:
        report = device.bench(bundle, **chosen)
        return device.address, report, store.add(report, device.address)

    with progress() as say:
        results, errors = on_each(devices, say, measure)
    for address, report, _ in results:
        try:
            require_parity(report)
        except BudgetError as error:
            errors.append((address, error))
    if as_json:
        documents = [report_document(report, address, run) for address, report, run in results]
        print_json({"reports": documents, "errors": errors_document(errors)})
    else:
        show_reports(results)
    return finish(errors)
