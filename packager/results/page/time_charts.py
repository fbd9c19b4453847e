"""Plots of time: a sustained run with clock and temperature below it, and where an inference spends its time."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from packager.results.page.charts import Axis, frame, number, short, svg

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.contract.protocol import Layer
    from packager.results.details import Point

_WIDTH, _LEFT, _RIGHT, _TOP, _PANEL, _STRIP, _GAP, _BOTTOM = 400, 52, 14, 12, 150, 46, 12, 40
_MOST_LAYERS = 40
_TAIL = 4.0


def sustained(points: Sequence[Point], title: str) -> str:
    """The median of each window as a line, up to its p95 as a band; below it the clock and the temperature, one time axis."""
    end = points[-1].minute
    strips = [("MHz", [point.mhz for point in points]), ("°C", [point.celsius for point in points])]
    known = [(name, values) for name, values in strips if any(value is not None for value in values)]
    height = _TOP + _PANEL + len(known) * (_STRIP + _GAP) + _BOTTOM
    x = Axis(0, end, _LEFT, _WIDTH - _RIGHT)
    tops = [point.p95_ms or point.p50_ms for point in points]
    ordered = sorted(tops)
    most = max(*(point.p50_ms for point in points), ordered[int(0.98 * (len(ordered) - 1))])
    low = min(point.p50_ms for point in points) * 0.98
    log = most > _TAIL * low  # else a long tail would press the medians flat
    y = Axis(low, most, _TOP + _PANEL, _TOP, log=log)
    band = "".join(f"M{x(p.minute)} {y(p.p50_ms)}V{y(min(top, y.high))}" for p, top in zip(points, tops, strict=True))
    line = "L".join(f"{x(point.minute)} {y(point.p50_ms)}" for point in points)
    body = (
        frame(x, y, "minute", "ms, log scale" if log else "ms", height=height)
        + f'<path class="s" d="{band}"/><path class="c" d="M{line}"/>'
    )
    for place, (name, values) in enumerate(known):
        body += _strip(x, points, values, name, _TOP + _PANEL + _GAP + place * (_STRIP + _GAP))
    hot = [x(point.minute) for point in points if point.throttled]
    body += "".join(f'<path class="m" d="M{at} {_TOP}V{_TOP + _PANEL}"/>' for at in hot)
    said = f"median {number(points[0].p50_ms)} ms at first, {number(points[-1].p50_ms)} ms at the end"
    for name, values in known:
        read = [value for value in values if value is not None]
        said += f"; {number(read[0])} to {number(read[-1])} {name}"
    return svg(body, title, said + (f"; throttled in {len(hot)} windows" if hot else ""), height=height)


def _strip(x: Axis, points: Sequence[Point], values: Sequence[float | None], name: str, top: float) -> str:
    known = [(point.minute, value) for point, value in zip(points, values, strict=True) if value is not None]
    y = Axis(min(value for _, value in known), max(value for _, value in known), top + _STRIP, top)
    line = "L".join(f"{x(minute)} {y(value)}" for minute, value in known)
    marks = "".join(
        f'<path class="g" d="M{x.start} {y(value)}H{x.end}"/>'
        f'<text class="t" x="{x.start - 5}" y="{y(value) + 4}" text-anchor="end">{short(value)}</text>'
        for value in sorted({min(value for _, value in known), max(value for _, value in known)})
    )
    label = f'<text class="l" x="{x.end}" y="{top + 10}" text-anchor="end">{escape(name)}</text>'
    return marks + f'<path class="c" d="M{line}"/>' + label


def layers(found: Sequence[Layer], shares: Sequence[float], title: str, most: int = _MOST_LAYERS) -> str:
    """A bar for each of the slowest layers, the longest first; those of conversion in another colour, and named."""
    ranked = sorted(zip(found, shares, strict=True), key=lambda one: -one[0].time_ns)[: min(most, _MOST_LAYERS)]
    x = Axis(0, ranked[0][0].time_ns / 1e3, 150, _WIDTH - 92)
    height = 18 * len(ranked) + _TOP + 10
    body = ""
    for index, (layer, share) in enumerate(ranked):
        at, taken = _TOP + 18 * index, layer.time_ns / 1e3
        kind, told = ("v", " conv.") if layer.overhead else ("a", "")
        body += f'<text class="t" x="144" y="{at + 12}" text-anchor="end">{escape(layer.name[-24:])}</text>'
        body += f'<rect class="{kind}" x="150" y="{at + 2}" width="{max(0.5, x(taken) - 150):.1f}" height="13"/>'
        body += f'<text class="t" x="{x(taken) + 4}" y="{at + 12}">{short(taken)} µs, {share:.0%}{told}</text>'
    rest = f"; {len(found) - len(ranked)} quicker ones stand in the table only" if len(found) > len(ranked) else ""
    return svg(body, title, f"{len(ranked)} layers, the slowest {ranked[0][0].name}{rest}", height=height)
