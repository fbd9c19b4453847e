"""Try it now: a real classifier, float against INT8, on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from packager.cli._show import json_option, mb, ms, print_json, progress, show_findings, table
from packager.cli._store import tell

if TYPE_CHECKING:
    from agent.contract.finding import Finding
    from packager.demo import DemoRow


@click.command()
@click.option(
    "--seconds", type=click.FloatRange(0.2, 600), default=2.0, show_default=True, help="Time measured for each model."
)
@json_option
def command(seconds: float, *, as_json: bool) -> None:
    """Build an INT8 bundle from a classifier trained on Fashion-MNIST, push it to this machine, and measure it beside fp32."""
    from packager.demo import run_demo
    from packager.results.store import ResultStore

    with progress() as say:
        rows = run_demo(seconds=seconds, progress=say)
    store = ResultStore()
    for row in rows:
        for report in row.reports:
            store.add(report, "local")
    tell(store)
    if as_json:
        print_json({"rows": [row.document() for row in rows], "p50_ratio": rows[1].p50_ms / rows[0].p50_ms})
        return
    device = rows[0].reports[0].facts
    click.echo(f"Fashion-MNIST classifier on local ({device.model}), one thread, measured in turn:")
    table(
        ["model", "size", "p50 ms", "accuracy", "parity"],
        [[row.recipe, mb(_size(row)), ms(row.p50_ms), f"{row.accuracy:.1%} of {row.n}", _parity(row)] for row in rows],
        right=[1, 2, 3],
    )
    click.echo(_verdict(rows[0], rows[1]))
    show_findings(_named(rows))


def _named(rows: list[DemoRow]) -> list[Finding]:
    """Every doubt once; one that not all models share says whose it is."""
    import dataclasses

    from packager.demo import findings

    every = [{(one.code, one.message): one for one in findings(row) if one.code != "few-samples"} for row in rows]
    shown = {}
    for row, found in zip(rows, every, strict=True):
        for key, one in found.items():
            shared = all(key in other for other in every)
            shown[key if shared else (row.recipe, *key)] = (
                one if shared else dataclasses.replace(one, message=f"{row.recipe}: {one.message}")
            )
    return list(shown.values())


def _verdict(fp32: DemoRow, int8: DemoRow) -> str:
    smaller = 1 - _size(int8) / _size(fp32)
    ratio = int8.p50_ms / fp32.p50_ms
    speed = f"{1 / ratio:.2f}x faster" if ratio < 1 else f"{ratio:.2f}x slower"
    points = 100 * (fp32.accuracy - int8.accuracy)
    lost = f"{points:.1f} points lost" if points > 0 else "no accuracy lost"
    return f"INT8: {smaller:.0%} smaller, {speed} on this CPU, {lost}."


def _size(row: DemoRow) -> int:
    manifest = row.built.manifest
    return manifest.files[manifest.model].size


def _parity(row: DemoRow) -> str:
    from packager.cli._report import parity_text

    return parity_text(row.reports[0])
