"""Measure a bundle on devices: right? how fast? how big?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from packager.cli import _bench_options, _complete
from packager.cli._bench_options import protocol_options
from packager.cli._fleet import FleetOptions, fleet_options
from packager.cli._show import json_option, print_json, progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.contract.report import Report
    from packager.device.device import Device


@click.command()
@click.argument("bundle")
@click.argument("devices", nargs=-1, shell_complete=_complete.devices)
@protocol_options
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
@click.option(
    "--wait", "wait_seconds", type=click.FloatRange(0, 86400), help="Wait so long (s) for whoever has the device [600]."
)
@click.option(
    "--eval", "data", metavar="DATA.npz", help="Labelled samples: scored on the device's kernels and on the host's."
)
@click.option("--metric", help="top1, top5, mse, cosine or FILE.py:score [top1].")
@click.option("--benchmark-model", help="For adb:SERIAL: TFLite's own program, built for the phone, to be run there.")
@click.option("--provision", is_flag=True, help="Bring a missing runtime to the device without asking.")
@fleet_options
@json_option
def command(
    bundle: str,
    devices: tuple[str, ...],
    fleet: FleetOptions,
    data: str | None,
    metric: str | None,
    *,
    as_json: bool,
    provision: bool,
    **options: Any,
) -> int:
    """Push BUNDLE where it is missing, check its golden outputs on the device's own kernels, then measure.

    A device without the bundle's runtime is offered it, in edgepack's own folder there: asked at a terminal, else with
    --provision. Exit code 6 when a device does not compute what the original model computes.
    """
    from agent.contract.errors import BudgetError
    from packager.cli import _provision_offer
    from packager.cli._eval import Scorer
    from packager.cli._fleet import Work, digest_of, errors_document, finish, on_each
    from packager.cli._report import show_reports
    from packager.cli._store import tell
    from packager.results.document import report_document, require_parity
    from packager.results.store import ResultStore

    store = ResultStore()
    chosen = _bench_options.chosen(options)

    scorer = Scorer(bundle, data, metric, chosen)

    def line(result: tuple[str, Report, int]) -> str:
        return f"{result[0]}: measured, run {result[2]}"

    work = None
    if fleet.chosen:
        key = ["bench", digest_of(bundle), chosen]
        work = Work(
            fleet, key, line, lambda result: report_document(result[1], result[0], result[2] or None), as_json=as_json
        )

    def measure_on(names: Sequence[str], bring: bool) -> _provision_offer.Results:
        def measure(device: Device) -> tuple[str, Report, int]:
            report = _provision_offer.bringing(
                device,
                bundle,
                lambda: scorer.measure(device, lambda: device.bench(bundle, **chosen)),
                bring=bring or provision,
            )
            return device.address, report, store.add(report, device.address)

        with progress() as say, scorer.ready(say):
            return on_each(names, say, measure, fleet, work)

    if fleet.chosen:
        results, errors = measure_on(devices, False)
    else:
        results, errors = _provision_offer.with_offers(devices, bundle, measure_on)
    tell(store)
    for address, report, _ in results:
        try:
            require_parity(report)
        except BudgetError as error:
            errors.append((address, error))
    if as_json and work is None:
        documents = [report_document(report, address, run or None) for address, report, run in results]
        print_json({"reports": documents, "errors": errors_document(errors)})
    elif not as_json:
        show_reports(results)
    return finish(errors)
