"""The study as one page: a single HTML file, nothing fetched, nothing run."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from packager.accuracy.metric import number
from packager.page_frame import frame, scrolled
from packager.version import __version__

if TYPE_CHECKING:
    from packager.study.row import Compared
    from packager.study.run import Study

_LEFT, _WIDE, _STEP = 150, 400, 22  # of the drawing: names, bars, a row
_LONGEST = 22  # letters of a name that fit


def render(study: Study) -> str:
    """The page's text."""
    title = f"{study.name} for {study.options.target}"
    measured = [one for one in study.rows if one.row.latency is not None]
    return frame(
        title,
        f"""<h1>{escape(title)}</h1>
<p class="advice"><b>{escape(study.advice[:1].upper() + study.advice[1:])}</b>.</p>
<p>{_how(study)}</p>
{_table(study)}
{_chart(measured) if measured else ""}
{_findings(study)}
<p class="soft">Made by edgepack {escape(__version__)} from {_made_from(study)}. A technique that failed keeps its row.</p>""",
    )


def _how(study: Study) -> str:
    text = (
        f"Each row is compared with the first. Accuracy is {escape(study.metric)} on {study.n} samples, computed where this "
        f"page was made; what is lost stands with its 95 % interval, and the budget is {escape(str(study.budget))}."
    )
    if not any(one.row.latency is not None for one in study.rows):
        return f"{text} No device was asked, so nothing is known of speed: <code>--device</code> measures it."
    machine = f" on {escape(study.machine)}" if study.machine else ""
    return (
        f"{text} Latency is the median{machine}; its interval holds the medians of six fresh processes, in two turns."
    )


def _made_from(study: Study) -> str:
    asked = study.options
    files = (("calibration", asked.calibration), ("samples", asked.eval), ("training", asked.train))
    told = [f"{what} {Path(name).name}" for what, name in files if name]
    return escape(", ".join([Path(asked.model).name, *told]))


def _table(study: Study) -> str:
    head = ["technique", "size", "latency", "speed-up", study.metric, "parity", "verdict"]
    sides = ["", *[' class="n"'] * 4, "", ""]
    heads = "".join(f"<th{side}>{escape(one)}</th>" for side, one in zip(sides, head, strict=True))
    rows = "\n".join(_row(one) for one in study.rows)
    return scrolled(
        f'<table class="cards"><thead><tr>{heads}</tr></thead><tbody>\n{rows}\n</tbody></table>', "techniques"
    )


def cells(one: Compared) -> list[str]:
    """Size, latency, speed-up, accuracy and parity in words: the same in the table on the terminal and on the page."""
    row = one.row
    size = "-"
    if row.model_bytes is not None:
        size = f"{row.model_bytes / 1e6:.2f} MB" if row.model_bytes >= 1e6 else f"{row.model_bytes / 1e3:.1f} kB"  # noqa: PLR2004
    latency, speedup, accuracy = "-", "-", "-"
    if row.latency is not None:
        form = "{:.3f}" if row.latency.unit == "ms" else "{:.0f}"
        low, middle, high = (form.format(value) for value in (row.latency.low, row.latency.p50, row.latency.high))
        latency = f"{middle} {row.latency.unit} ({low} to {high})"
    if one.speedup is not None and one.speedup_interval is not None:
        speedup = f"{one.speedup:.2f}x ({one.speedup_interval[0]:.2f} to {one.speedup_interval[1]:.2f})"
    if row.accuracy is not None:
        accuracy = number(row.accuracy.score)
    return [size, latency, speedup, accuracy, row.parity or "-"]


def _row(one: Compared) -> str:
    row = one.row
    kind = "failed" if row.error else "worth" if one.worth else ""
    note = f"<br><small>{escape(row.note)}</small>" if row.note else ""
    size, latency, speedup, score, parity = (_in_two_lines(cell) for cell in cells(one))
    numbers = (("size", size), ("latency", latency), ("speed-up", speedup), ("score", score))
    middle = "".join(f'<td class="n" data-name="{name}">{cell}</td>' for name, cell in numbers)
    ending = f'<td class="{(row.parity or "none").partition(" ")[0]}" data-name="parity">{parity}</td>'
    ending += f'<td class="w">{escape(_words(one))}</td>'
    return f'<tr class="{kind}"><td class="m">{escape(row.label)}{note}</td>{middle}{ending}</tr>'


def _in_two_lines(cell: str) -> str:
    value, bracket, interval = escape(cell).partition(" (")
    return f"{value}<br><small>{interval.removesuffix(')')}</small>" if bracket else value


def _words(one: Compared) -> str:
    """The verdict; the row's own name stands in its first column."""
    text = one.verdict.removeprefix(f"{one.row.label}: ")
    return text[:1].upper() + text[1:]


def _chart(rows: list[Compared]) -> str:
    """A bar for each measured row, with the interval as a line."""
    timed = [(one, one.row.latency) for one in rows if one.row.latency is not None]
    most = max(latency.high for _, latency in timed) or 1.0
    parts = []
    for index, (one, latency) in enumerate(timed):
        top, wide = index * _STEP, latency.p50 / most * _WIDE
        low, high = (_LEFT + value / most * _WIDE for value in (latency.low, latency.high))
        name = one.row.label if len(one.row.label) <= _LONGEST else f"{one.row.label[: _LONGEST - 1]}…"
        parts.append(
            f"<g><title>{escape(one.row.label)}: {escape(cells(one)[1])}</title>"
            f'<text x="{_LEFT - 6}" y="{top + 14}" text-anchor="end">{escape(name)}</text>'
            f'<rect class="{"ok" if one.worth else "a"}" x="{_LEFT}" y="{top + 4}" width="{wide:.1f}" height="13"/>'
            f'<path class="c" d="M{low:.1f} {top + 10.5}H{high:.1f}"/>'
            f'<text class="l" x="{max(_LEFT + wide, high) + 5:.1f}" y="{top + 14}">{number(latency.p50)}</text></g>'
        )
    size = f"0 0 {_LEFT + _WIDE + 60} {len(timed) * _STEP + 4}"
    drawing = f'<svg viewBox="{size}" role="img" aria-label="Latency of each row">{"".join(parts)}</svg>'
    marked = "; green: worth it here" if any(one.worth for one, _ in timed) else ""
    said = f"<figcaption>Median, and the line from lowest to highest round{marked}</figcaption>"
    return f"<h2>Latency, {timed[0][1].unit}</h2>\n<figure>{said}{drawing}</figure>"


def _findings(study: Study) -> str:
    """Every doubt once, with the rows it stands for: no number without its findings."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for one in study.rows:
        for found in one.row.findings:
            rows.setdefault((found.level, found.message, found.advice), []).append(one.row.label)
    if not rows:
        return ""
    told = "".join(
        f'<li><span class="level {level}">{level}</span>: {escape(text)} <small>({escape(", ".join(labels))})</small>'
        + (f'<br><span class="soft">{escape(advice)}</span>' if advice else "")
        + "</li>"
        for (level, text, advice), labels in rows.items()
    )
    return f'<h2>Doubts</h2>\n<ul class="found">{told}</ul>'
