"""The analysis as one page: a bar for each layer, in SVG, with nothing loaded from anywhere."""

from __future__ import annotations

import html
from typing import Any

_ROW, _LEFT, _WIDE = 18, 330, 520
_BEST = 70.0  # dB at which a bar ends
_STYLE = (
    "body{font:14px system-ui,sans-serif;margin:2em;max-width:64em}text{font:12px system-ui,sans-serif}"
    ".bad{fill:#c0392b}.fair{fill:#e0a030}.good{fill:#4a90a4}table{border-collapse:collapse}td,th{padding:2px 10px}"
)
_BAD, _FAIR = 25.0, 40.0  # dB


def page(model: str, document: dict[str, Any]) -> str:
    """The HTML of an analysis document, worst layers first: the longer the bar, the more noise that layer makes alone."""
    layers, whole = document["layers"], document["whole"]
    bars = "".join(_bar(index, row) for index, row in enumerate(layers))
    height = _ROW * len(layers) + 10
    drop = "" if whole["drop"] is None else f"{whole['drop']:+.2f} points of {html.escape(document['metric'])} lost, "
    title = html.escape(f"Where INT8 loses: {model}")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f"<h1>{title}</h1><p>Everything in INT8: {drop}{whole['sqnr_db']} dB of signal over noise in the outputs; "
        f"the worst output band is {html.escape(whole['worst_band'])} with {whole['worst_band_sqnr_db']} dB.</p>"
        f"<p>Each bar: one layer in INT8, all others in float. The longer, the more noise in the outputs.</p>"
        f'<svg width="{_LEFT + _WIDE + 240}" height="{height}" role="img" aria-label="{title}">{bars}</svg></html>\n'
    )


def _bar(index: int, row: dict[str, Any]) -> str:
    y, sqnr = _ROW * index + 4, row["sqnr_db"]
    length = _WIDE if sqnr is None else max(2, int(_WIDE * (1 - min(max(sqnr, 0.0), _BEST) / _BEST)))
    kind = "bad" if sqnr is None or sqnr < _BAD else "fair" if sqnr < _FAIR else "good"
    said = "cannot be quantised" if sqnr is None else f"{sqnr} dB"
    said += "" if row["drop"] is None else f", {row['drop']:+.2f} points"
    said += f", {row['macs'] / 1e6:.2f} M multiply-adds"
    name = row["name"] if len(row["name"]) <= 48 else f"...{row['name'][-45:]}"  # noqa: PLR2004 - what fits
    band = f"worst band {row['worst_band']}: {row['worst_band_sqnr_db']} dB" if row["worst_band"] else ""
    return (
        f"<g><title>{html.escape(row['name'])} ({html.escape(row['operator'])}) {html.escape(band)}</title>"
        f'<text x="{_LEFT - 8}" y="{y + 11}" text-anchor="end">{html.escape(name)}</text>'
        f'<rect class="{kind}" x="{_LEFT}" y="{y}" width="{length}" height="{_ROW - 5}"/>'
        f'<text x="{_LEFT + length + 6}" y="{y + 11}">{html.escape(said)}</text></g>'
    )
