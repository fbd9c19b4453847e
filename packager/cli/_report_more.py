"""What follows a report's row: the sustained course, streams, threads tried, and layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from packager.cli._show import ms, table

if TYPE_CHECKING:
    from agent.contract.report import Report

_ROWS = 12
_LAYERS = 15


def show_more(report: Report, run: int) -> None:
    """All that this report has of it."""
    _show_protocol(report, run)
    _show_course(report, run)
    _show_layers(report, run)


def _show_protocol(report: Report, run: int) -> None:
    protocol = report.protocol
    if protocol is None:
        return
    if protocol.threads_tried:
        tried = ", ".join(f"{count}: {ms(median / 1e6)} ms" for count, median in protocol.threads_tried.items())
        click.echo(f"run {run}: {report.runtime.threads} threads are best (tried {tried})")
    if protocol.streams > 1:
        click.echo(
            f"run {run}: {protocol.streams} streams at once; latencies are each stream's own, the rate is of all"
        )
    if protocol.batch:
        click.echo(f"run {run}: latencies are of a batch of {protocol.batch}, the rate counts its samples")


def _show_course(report: Report, run: int) -> None:
    from packager.results.details import fewer, points, sustained_document

    told = sustained_document(report)
    if told is None:
        return
    found = points(report)
    rows = [
        [
            f"{point.minute:.2f}",
            ms(point.p50_ms),
            ms(point.p95_ms),
            f"{point.per_s:.0f}/s",
            f"{point.mhz:.0f}" if point.mhz is not None else "-",
            f"{point.celsius:.1f}" if point.celsius is not None else "-",
            {True: "yes", False: "no", None: "-"}[point.throttled],
        ]
        for point in fewer(found, _ROWS)
    ]
    heads = ["minute", "p50 ms", "p95 ms", "rate", "MHz", "°C", "throttled"]
    table(heads, rows, title=f"run {run}: sustained, {len(found)} windows", right=range(6))
    click.echo(f"run {run}: at the end {told['end_over_begin']:.3f} times the beginning's time")
    unread = [f"{name}: {why}" for name, why in told["unread"].items() if name in ("frequency_mhz", "temperature_c")]
    if unread:
        click.echo(f"run {run}: not readable: {'; '.join(unread)}")


def _show_layers(report: Report, run: int) -> None:
    from packager.results.details import overhead_share, shares

    profile = report.profile
    if profile is None:
        return
    if not profile.layers:
        click.echo(f"run {run}: no layers: {profile.unread}")
        return
    ranked = sorted(zip(profile.layers, shares(profile.layers), strict=True), key=lambda one: -one[1])
    rows = [
        [
            layer.name,
            layer.kind,
            f"{layer.time_ns / 1e3:.1f}",
            f"{share:.1%}",
            layer.provider.removesuffix("ExecutionProvider"),
            "conversion" if layer.overhead else "",
            ", ".join(layer.original),
        ]
        for layer, share in ranked[:_LAYERS]
    ]
    heads = ["layer", "kind", "µs", "share", "on", "", "of the model's nodes"]
    title = (
        f"run {run}: the {len(rows)} slowest of {len(profile.layers)} layers, middle half of {profile.runs} inferences"
    )
    table(heads, rows, title=title, right=[2, 3])
    overhead = overhead_share(profile.layers) or 0.0
    click.echo(
        f"run {run}: {overhead:.1%} of the layers' time is conversion (transposing, padding, quantising and back)"
    )
