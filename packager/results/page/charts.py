"""Plots as inline SVG: colours by CSS classes, so that dark, light and print need no second drawing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

_WIDTH, _HEIGHT = 400, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 12, 40
_BINS = 60
_COLUMNS = 120
_TAIL = 5.0
_LETTER, _LINE = 6.2, 12.0  # of a name in a plot: the width of a letter, the height of a line


def number(value: float | None) -> str:
    """Four significant digits at most, thousands apart by a thin space."""
    if value is None:
        return "\N{EN DASH}"
    if abs(value) >= 1000:  # noqa: PLR2004 - from here on no digit after the point says anything
        return f"{round(value):,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    return f"{value:.4g}"


def short(value: float) -> str:
    """For an axis: 3.6M, 120k, 0.417."""
    for size, mark in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if mark == 'k' else size):.3g}{mark}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"  # noqa: PLR2004 - no 1e+03


class Axis:
    """A linear or logarithmic scale from values to places."""

    def __init__(self, low: float, high: float, start: float, end: float, *, log: bool = False) -> None:
        if high <= low:
            low, high = low - (abs(low) * 0.05 or 1.0), high + (abs(high) * 0.05 or 1.0)
        self._log = log and low > 0
        self.low, self.high, self.start, self.end = low, high, start, end

    def __call__(self, value: float) -> float:
        """The place, rounded: a tenth of a unit is not seen."""
        low, high, at = (math.log(v) if self._log else v for v in (self.low, self.high, max(value, self.low)))
        return round(self.start + (min(at, high) - low) / (high - low) * (self.end - self.start), 1)

    def ticks(self, most: int = 5) -> list[float]:
        """Round values."""
        if self._log and self.high / self.low > 20:  # noqa: PLR2004 - two decades and a bit: powers are enough
            powers = range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
            found = [10.0**power for power in powers]
            if len(found) > 1:
                return found[:: math.ceil(len(found) / most)]
        raw = (self.high - self.low) / most
        size = 10 ** math.floor(math.log10(raw))
        step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw)
        first = math.ceil(self.low / step)
        return [round(index * step, 12) for index in range(first, math.floor(self.high / step) + 1)]


def frame(x: Axis, y: Axis, x_label: str, y_label: str, *, height: float = _HEIGHT) -> str:
    """Grid lines, ticks and the axes' names."""
    parts = []
    for tick in y.ticks():
        at = y(tick)
        parts.append(f'<path class="g" d="M{x.start} {at}H{x.end}"/>')
        parts.append(f'<text class="t" x="{x.start - 5}" y="{at + 4}" text-anchor="end">{short(tick)}</text>')
    bottom = height - _BOTTOM
    for tick in x.ticks():
        at = x(tick)
        parts.append(f'<path class="g" d="M{at} {bottom}v4"/>')
        parts.append(f'<text class="t" x="{at}" y="{bottom + 16}" text-anchor="middle">{short(tick)}</text>')
    middle = (x.start + x.end) / 2
    parts.append(f'<text class="l" x="{middle}" y="{height - 6}" text-anchor="middle">{escape(x_label)}</text>')
    up = (y.start + y.end) / 2
    parts.append(
        f'<text class="l" transform="translate(11 {up}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>'
    )
    return "".join(parts)


def svg(body: str, title: str, said: str, *, height: float = _HEIGHT) -> str:
    """The drawing with its name and what it shows, for those who do not see it."""
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height:g}" role="img" aria-label="{escape(title)}. {escape(said)}">'
        f"<title>{escape(title)}</title>{body}</svg>"
    )


def histogram(samples: Sequence[float], marks: Sequence[tuple[str, float | None]], unit: str, title: str) -> str:
    """How often each latency came; up to the last mark, what lies beyond is said. Marks are lines with names."""
    known = [(name, value) for name, value in marks if value is not None]
    ordered = sorted(samples)
    low, top = ordered[0], max([value for _, value in known] or [ordered[-1]])
    high = min(ordered[-1], top + 0.15 * (top - low)) if top > low else ordered[-1]
    log = low > 0 and high > _TAIL * low  # a long tail would leave one bar for all the rest
    x = Axis(low, high, _LEFT, _WIDTH - _RIGHT, log=log)
    counts = [0] * _BINS
    for value in samples:
        if value <= x.high:
            counts[min(_BINS - 1, int((x(value) - x.start) / (x.end - x.start) * _BINS))] += 1
    y = Axis(0, max(counts), _HEIGHT - _BOTTOM, _TOP + 14)
    wide = (x.end - x.start) / _BINS
    steps = "".join(f"V{y(count)}h{wide:.2f}" for count in counts)
    body = (
        frame(x, y, unit + ", log scale" * log, "inferences")
        + f'<path class="a" d="M{x.start} {y.start}{steps}V{y.start}Z"/>'
    )
    for index, (name, value) in enumerate(known):
        at = x(value)
        body += f'<path class="m" d="M{at} {_TOP + 12}V{y.start}"/>'
        body += f'<text class="t" x="{at}" y="{_TOP + 8 * (index % 2) + 2}" text-anchor="middle">{name}</text>'
    beyond = sum(1 for value in samples if value > x.high)
    said = "; ".join(f"{name} {number(value)} {unit}" for name, value in known)
    rest = f"; {beyond} of {len(samples)} lie beyond the right edge" if beyond else ""
    return svg(body, title, said + rest)


def course(
    rounds: Sequence[Sequence[float]], readings: Sequence[tuple[float, float, str]], unit: str, title: str
) -> str:
    """The samples in the order they were taken: the range and the median of each column, rounds apart by lines.

    `readings` are (share of the run, share of the height, text): clock or temperature, drawn as points.
    """
    flat = [value for one in rounds for value in one]
    ordered = sorted(flat)
    y = Axis(ordered[0], ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], _HEIGHT - _BOTTOM, _TOP)
    x = Axis(0, len(flat), _LEFT, _WIDTH - _RIGHT)
    size = max(1, math.ceil(len(flat) / _COLUMNS))
    spans, line = [], []
    for start in range(0, len(flat), size):
        part = sorted(flat[start : start + size])
        at = x(start + len(part) / 2)
        spans.append(f"M{at} {y(part[0])}V{y(part[-1])}")
        line.append(f"{at} {y(part[len(part) // 2])}")
    body = frame(x, y, "inference, in the order taken", unit)
    body += f'<path class="s" d="{"".join(spans)}"/><path class="c" d="M{"L".join(line)}"/>'
    edge = 0
    for one in rounds[:-1]:
        edge += len(one)
        body += f'<path class="m" d="M{x(edge)} {_TOP}V{y.start}"/>'
    for share, height, text in readings:
        at, up = x(share * len(flat)), y.start + height * (y.end - y.start)
        body += f'<circle class="p" cx="{at}" cy="{up:.1f}" r="4"><title>{escape(text)}</title></circle>'
    medians = "; ".join(
        f"round {n}: median {number(sorted(one)[len(one) // 2])} {unit}" for n, one in enumerate(rounds, 1) if one
    )
    return svg(body, title, medians)


def strips(rows: Sequence[tuple[str, Sequence[float]]], unit: str, title: str) -> str:
    """One row for each run: a line from p5 to p95, a box from p25 to p75, the median as a mark. Log scale."""
    low = min(values[0] for _, values in rows)
    high = max(values[-1] for _, values in rows)
    x = Axis(low * 0.95, high * 1.05, 130, _WIDTH - _RIGHT, log=True)
    row, height = 18, 18 * len(rows) + _TOP + _BOTTOM
    body = "".join(f'<path class="g" d="M{x(tick)} {_TOP}V{height - _BOTTOM}"/>' for tick in x.ticks())
    for tick in x.ticks():
        body += f'<text class="t" x="{x(tick)}" y="{height - _BOTTOM + 16}" text-anchor="middle">{short(tick)}</text>'
    body += f'<text class="l" x="{(x.start + x.end) / 2}" y="{height - 6}" text-anchor="middle">{escape(unit)}</text>'
    for index, (name, (p5, p25, p50, p75, p95)) in enumerate(rows):
        middle = _TOP + row * index + row / 2
        body += f'<text class="t" x="124" y="{middle + 4:g}" text-anchor="end">{escape(name[:22])}</text>'
        body += f'<path class="s" d="M{x(p5)} {middle:g}H{x(p95)}"/>'
        body += f'<rect class="a" x="{x(p25)}" y="{middle - 5:g}" width="{max(1.0, x(p75) - x(p25)):.1f}" height="10"/>'
        body += f'<path class="c" d="M{x(p50)} {middle - 6:g}v12"/>'
    return svg(body, title, f"{len(rows)} runs; the table holds the numbers", height=height)


def bars(rows: Sequence[tuple[str, float]], unit: str, title: str) -> str:
    """Horizontal bars, the longest first."""
    rows = sorted(rows, key=lambda one: -one[1])[:40]
    x = Axis(0, max(value for _, value in rows), 150, _WIDTH - 60)
    height = 18 * len(rows) + _TOP + 10
    body = ""
    for index, (name, value) in enumerate(rows):
        at = _TOP + 18 * index
        body += f'<text class="t" x="144" y="{at + 12}" text-anchor="end">{escape(name[-24:])}</text>'
        body += f'<rect class="a" x="150" y="{at + 2}" width="{max(0.5, x(value) - 150):.1f}" height="13"/>'
        body += f'<text class="t" x="{x(value) + 4}" y="{at + 12}">{short(value)}</text>'
    return svg(body, title, f"{len(rows)} bars in {unit}", height=height)


def pareto(
    points: Sequence[tuple[str, float, float, float]],
    labels: tuple[str, str],
    title: str,
    *,
    low_is_better: bool = False,
) -> str:
    """(name, x: lower is better, y: higher is better, or lower with `low_is_better`, size). Those that no other beats in both
    are joined and filled.
    """
    xs, ys = [one[1] for one in points], [one[2] for one in points]
    room = 0.08 * (max(xs) - min(xs) or max(xs) or 1.0), 0.12 * (max(ys) - min(ys) or abs(max(ys)) * 0.05 or 1.0)
    x = Axis(max(0.0, min(xs) - room[0]), max(xs) + room[0], _LEFT, _WIDTH - _RIGHT)
    y = Axis(min(ys) - room[1], max(ys) + room[1], _HEIGHT - _BOTTOM, _TOP)
    sign = -1 if low_is_better else 1
    best = front([(one[1], sign * one[2]) for one in points])
    ordered = sorted(best, key=lambda index: points[index][1])
    joined = "L".join(f"{x(points[index][1])} {y(points[index][2])}" for index in ordered)
    body = frame(x, y, *labels) + f'<path class="d" d="M{joined}"/>'
    largest = max(one[3] for one in points) or 1.0
    taken: list[tuple[float, float, float]] = []
    for index, (name, at_x, at_y, size) in enumerate(points):
        radius = 3 + 8 * math.sqrt(size / largest)
        kind = "p" if index in best else "o"
        end = "end" if x(at_x) > _WIDTH * 0.7 else "start"
        shift = -radius - 3 if end == "end" else radius + 3
        body += f'<circle class="{kind}" cx="{x(at_x)}" cy="{y(at_y)}" r="{radius:.1f}"><title>{escape(name)}</title></circle>'
        if len(points) <= 12:  # noqa: PLR2004 - more names would lie on one another
            left = x(at_x) + shift - (_LETTER * len(name[:20]) if end == "end" else 0)
            place = f'x="{x(at_x) + shift:.1f}" y="{_free(taken, left, y(at_y) + 4, len(name[:20])):.1f}" text-anchor="{end}"'
            body += f'<text class="t" {place}>{escape(name[:20])}</text>'
    named = ", ".join(points[index][0] for index in ordered)
    return svg(body, title, f"not beaten in both: {named}")


def _free(taken: list[tuple[float, float, float]], left: float, wished: float, letters: int) -> float:
    """The height nearest to `wished` where a name of so many letters lies on none of those `taken`; it is taken, too."""
    right, height = left + _LETTER * letters, wished
    for step in range(2 * len(taken) + 1):
        height = wished + (-1) ** step * ((step + 1) // 2) * _LINE
        if _TOP <= height <= _HEIGHT - _BOTTOM and not any(
            left < end and start < right and abs(height - at) < _LINE for start, end, at in taken
        ):
            break
    taken.append((left, right, height))
    return height


def front(points: Sequence[tuple[float, float]]) -> set[int]:
    """The points that no other beats: none is at most as far right and at least as high, and better in one."""
    return {
        index
        for index, (x, y) in enumerate(points)
        if not any(a <= x and b >= y and (a, b) != (x, y) for a, b in points)
    }
