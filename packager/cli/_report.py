"""Reports as tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from packager.cli._report_more import show_more
from packager.cli._show import mb, ms, show_findings, table

if TYPE_CHECKING:
    from agent.contract.report import Report


_COLUMNS = ("p50", "p95", "p99", "mean", "std")


def show_reports(rows: Sequence[tuple[str, Report, int]]) -> None:
    """A table for each unit; then where each report ran, and every finding."""
    from packager.results.document import unit_text

    by_unit: dict[str, list[tuple[str, Report, int]]] = {}
    for row in rows:
        by_unit.setdefault(unit_text(row[1]), []).append(row)
    for unit, some in by_unit.items():
        _show_table(some, unit)
    for device, report, run in rows:
        _show_run(device, report, run)


def _show_table(rows: Sequence[tuple[str, Report, int]], unit: str) -> None:
    from packager.results.document import duration, latency, peak_memory

    lines = []
    for device, report, run in rows:
        numbers = latency(report)
        plain = numbers["unit"] == "ms"
        form = ms if plain else count
        p50, p95, p99, mean, std = (form(numbers[f"{key}_{numbers['unit']}"]) for key in _COLUMNS)
        (load,) = duration(report, [one.load_ns for one in report.rounds]).values()
        rate = numbers.get("throughput_per_s")
        model = f"{report.name} {report.recipe}"
        times = [p50, p95, p99, f"{mean} ± {std}", str(numbers["n"]), f"{rate:.0f}/s" if rate else "-", form(load)]
        size, memory = mb(report.model_bytes), mb(peak_memory(report))
        lines.append([str(run or "waits"), device, model, size, *times, memory, parity_text(report)])
    short = "ms" if unit == "ms" else ""
    heads = ["run", "device", "model", "size", *(f"{key} {short}".strip() for key in ("p50", "p95", "p99", "mean"))]
    heads += ["n", "rate", f"load {short}".strip(), "memory", "parity"]
    table(heads, lines, title="" if unit == "ms" else unit, right=range(3, 12))


def _show_run(device: str, report: Report, run: int) -> None:
    from packager.results import energy
    from packager.results.document import memory_above_interpreter

    used = report.runtime
    placed = ", ".join(f"{nodes} nodes on {name}" for name, nodes in used.placement.items())
    threads = f"{used.threads} threads" if used.threads else "default threads"
    share = mb(memory_above_interpreter(report))
    board = report.facts.model if report.emulation is None else f"emulated {report.emulation.cpu}"
    click.echo(
        f"run {run}: {device} ({board}), {used.name} {used.version}, {threads}; {placed}; {share} above the bare interpreter"
    )
    if report.accuracy is not None:
        from packager.accuracy.on_device import difference

        click.echo(f"run {run}: {difference(report.accuracy)}")
    if energy.told(report):
        click.echo(f"run {run}: {energy.told(report)}")
    show_more(report, run)
    show_findings(report.findings)


def count(value: float | None) -> str:
    """A number of instructions, in thousands separated by spaces."""
    return "-" if value is None else f"{round(value):,}".replace(",", " ")


def parity_text(report: Report) -> str:
    """Pass or fail, with the worst cosine."""
    if report.parity is None:
        return "not checked"
    cosines = [output.cosine for output in report.parity.outputs if output.cosine is not None]
    worst = f" ({min(cosines):.5f})" if cosines else ""
    return report.parity.verdict + worst
