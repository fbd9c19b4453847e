"""The reports kept on this machine."""

from __future__ import annotations

import datetime as dt

import click

from packager.cli import _complete
from packager.cli._results_pairs import comparisons
from packager.cli._results_series import baseline, export, history, prune
from packager.cli._show import json_option, ms, print_json, table
from packager.cli._store import chosen, database_option, tell


@click.group()
def command() -> None:
    """The reports kept on this machine."""


for _more in (baseline, comparisons, export, history, prune):
    command.add_command(_more)


@command.command("list")
@click.option(
    "--most", "-n", type=click.IntRange(1, 100000), default=50, show_default=True, help="How many at the most."
)
@database_option
@json_option
def list_(most: int, database: str, *, as_json: bool) -> None:
    """The newest reports."""
    from packager.cli._report import count, parity_text
    from packager.results.document import latency, report_document
    from packager.results.store import ResultStore

    store = ResultStore(address=database)
    stored = chosen(store, (), most)
    if as_json:
        documents = []
        for one in stored:
            document = report_document(one.report, one.device, one.run)
            document["latency"] = {k: v for k, v in document["latency"].items() if not k.startswith("samples")}
            del document["rounds"]
            documents.append({**document, "stored_unix": one.stored_unix})
        print_json(documents)
        return
    rows = []
    for one in stored:
        when = dt.datetime.fromtimestamp(one.stored_unix).astimezone()
        numbers = latency(one.report)
        rows.append(
            [
                str(one.run),
                when.strftime("%Y-%m-%d %H:%M"),
                one.device,
                f"{one.report.name} {one.report.recipe}",
                one.report.target,
                ms(numbers["p50_ms"]) if numbers["unit"] == "ms" else f"{count(numbers['p50_instructions'])} instr.",
                str(numbers["n"]),
                parity_text(one.report),
                str(len(one.report.findings)),
            ]
        )
    table(["run", "stored", "device", "model", "target", "p50 ms", "n", "parity", "findings"], rows, right=[0, 5, 6, 8])


@command.command()
@click.argument("run", type=int)
@database_option
@json_option
def show(run: int, database: str, *, as_json: bool) -> None:
    """One report, with all its findings."""
    from packager.cli._report import show_reports
    from packager.results.document import report_document
    from packager.results.store import ResultStore

    store = ResultStore(address=database)
    (one,) = chosen(store, (run,), 1)
    if as_json:
        print_json({**report_document(one.report, one.device, one.run), "stored_unix": one.stored_unix})
    else:
        show_reports([(one.device, one.report, one.run)])


@command.command()
@click.argument("device", shell_complete=_complete.devices)
@json_option
def collect(device: str, *, as_json: bool) -> None:
    """Fetch reports and comparisons that a lost link left on DEVICE."""
    from agent.contract.pairing import Pairing
    from agent.contract.report import Report
    from packager.compare.verdict import MARGIN
    from packager.device.device import Device
    from packager.results.pairings import PairingStore
    from packager.results.store import ResultStore

    store, pairs = ResultStore(), PairingStore()
    with Device(device) as connected:
        found = connected.collect()
        runs = [store.add(one, device) for one in found if isinstance(one, Report)]
        pairings = [pairs.add_pairings([one], device, MARGIN)[0] for one in found if isinstance(one, Pairing)]
        connected.forget_collected()
    tell(store)
    if as_json:
        print_json({"runs": runs, "comparisons": pairings})
        return
    click.echo(f"{device}: {len(runs)} reports fetched" + (f": runs {', '.join(map(str, runs))}" if runs else ""))
    if pairings:
        click.echo(f"{device}: {len(pairings)} comparisons fetched: {', '.join(map(str, pairings))}")


@command.command()
@click.argument("run_a", type=int)
@click.argument("run_b", type=int)
@json_option
def compare(run_a: int, run_b: int, *, as_json: bool) -> None:
    """The ratio of RUN_B to RUN_A; refused when device, unit, runtime, clocks or protocol differ.

    Stored reports were not measured in turn: a few percent may be the moment's.
    """
    import dataclasses

    from packager.results.compare import compare as ratio
    from packager.results.store import ResultStore

    store = ResultStore()
    found = ratio(store.get(run_a).report, store.get(run_b).report)
    if as_json:
        print_json({"a": run_a, "b": run_b, **dataclasses.asdict(found)})
        return
    click.echo(f"run {run_b} over run {run_a} ({found.unit}): p50 {found.p50_ratio:.3f}x, mean {found.mean_ratio:.3f}x, "
               f"model size {found.size_ratio:.3f}x")  # fmt: skip
