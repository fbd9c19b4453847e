"""The study as one page: a single HTML file, nothing fetched, nothing run."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from packager.version import __version__

if TYPE_CHECKING:
    from packager.study.row import Compared
    from packager.study.run import Study

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; color: #1c2733; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .4rem .6rem; vertical-align: top; }
th { border-bottom: 2px solid #1c2733; } td { border-bottom: 1px solid #dfe4ea; } td.n { text-align: right; }
tr.worth td:first-child { border-left: 4px solid #1a7f4b; } tr.failed { color: #8a2f2f; }
.small { color: #5b6875; font-size: 13px; } svg text { font: 12px system-ui, sans-serif; }
@media (prefers-color-scheme: dark) { body { background: #14181d; color: #dfe4ea; } td { border-color: #333c46; } }
"""
_BAR = 420
_STEP = 24


def render(study: Study) -> str:
    """The page's text."""
    advice = f"<b>{escape(study.advice)}</b>."
    machine = f" on {escape(study.machine)}" if study.machine else ""
    rows = "\n".join(_row(one) for one in study.rows)
    measured = [one for one in study.rows if one.row.latency is not None]
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(study.name)} for {escape(study.options.target)}</title><style>{_STYLE}</style>
<h1>{escape(study.name)} for {escape(study.options.target)}</h1>
<p>{advice} Accuracy is {escape(study.metric)} on {study.n} samples, computed on the machine that made this page; the budget
is {study.options.max_drop:g} points. Latency is the median{machine}; its interval holds the medians of six fresh processes,
measured in two turns.</p>
<table><tr><th>technique<th>runtime<th>size<th>latency<th>speed-up<th>accuracy<th>parity<th>verdict</tr>
{rows}
</table>
{_chart(measured) if measured else ""}
<p class="small">edgepack {escape(__version__)}. A failed technique keeps its row.</p>
</html>
"""


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
        accuracy = f"{row.accuracy.score:.4f}"
    return [size, latency, speedup, accuracy, row.parity or "-"]


def _row(one: Compared) -> str:
    kind = "failed" if one.row.error else "worth" if one.worth else ""
    note = f'<div class="small">{escape(one.row.note)}</div>' if one.row.note else ""
    middle = "".join(f'<td class="n">{escape(cell)}' for cell in cells(one))
    head = f'<tr class="{kind}"><td>{escape(one.row.label)}{note}<td>{escape(one.row.runtime)}'
    return f"{head}{middle}<td>{escape(one.verdict)}"


def _chart(rows: list[Compared]) -> str:
    most = max(one.row.latency.high for one in rows if one.row.latency is not None) or 1.0
    parts = []
    for index, one in enumerate(rows):
        latency = one.row.latency
        if latency is None:
            continue
        top, wide = index * _STEP, latency.p50 / most * _BAR
        low, high = latency.low / most * _BAR, latency.high / most * _BAR
        colour = "#1a7f4b" if one.worth else "#7b8794"
        parts.append(
            f'<text x="190" y="{top + 15}" text-anchor="end" fill="currentColor">{escape(one.row.label)}</text>'
            f'<rect x="200" y="{top + 4}" width="{wide:.1f}" height="14" fill="{colour}"/>'
            f'<line x1="{200 + low:.1f}" x2="{200 + high:.1f}" y1="{top + 11}" y2="{top + 11}" stroke="currentColor"/>'
        )
    unit = next(one.row.latency.unit for one in rows if one.row.latency is not None)
    return (
        f"<h2>Latency ({unit})</h2>"
        f'<svg width="{_BAR + 220}" height="{len(rows) * _STEP}" role="img" aria-label="latency">{"".join(parts)}</svg>'
    )
