"""Reports as tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from packager.cli._show import mb, ms, show_findings, table

if TYPE_CHECKING:
    from agent.contract.report import Report


def show_reports(rows: Sequence[tuple[str, Report, int]]) -> None:
    """One line per report; then where it ran, and every finding."""
    from packager.results.document import latency, memory_above_interpreter, peak_memory

    lines = []
    for device, report, run in rows:
        numbers = latency(report)
        std = numbers["std_ms"]
        lines.append(
            [
                str(run),
                device,
                f"{report.name} {report.recipe}",
                mb(report.model_bytes),
                ms(numbers["p50_ms"]),
                ms(numbers["p95_ms"]),
                ms(numbers["p99_ms"]),
                f"{ms(numbers['mean_ms'])} ± {ms(std)}",
                str(numbers["n"]),
                f"{numbers['throughput_per_s']:.0f}/s" if numbers["throughput_per_s"] else "-",
                ms(_load_ms(report)),
                mb(peak_memory(report)),
                parity_text(report),
            ]
        )
    table(
        [
            "run",
            "device",
            "model",
            "size",
            "p50 ms",
            "p95 ms",
            "p99 ms",
            "mean ms",
            "n",
            "rate",
            "load ms",
            "memory",
            "parity",
        ],
        lines,
        right=range(3, 12),
    )
    for device, report, run in rows:
        used = report.runtime
        placed = ", ".join(f"{count} nodes on {name}" for name, count in used.placement.items())
        threads = f"{used.threads} threads" if used.threads else "default threads"
        share = memory_above_interpreter(report)
        click.echo(f"run {run}: {device} ({report.facts.model}), {used.name} {used.version}, {threads}; {placed}; "
                   f"{mb(share)} above the bare interpreter")  # fmt: skip
        show_findings(report.findings)


def parity_text(report: Report) -> str:
    """Pass or fail, with the worst cosine."""
    if report.parity is None:
        return "not checked"
    cosines = [output.cosine for output in report.parity.outputs if output.cosine is not None]
    worst = f" ({min(cosines):.5f})" if cosines else ""
    return report.parity.verdict + worst


def _load_ms(report: Report) -> float | None:
    from agent.contract import statistics

    median = statistics.summary([one.load_ns for one in report.rounds])["p50"]
    return None if median is None else float(median) / 1e6
