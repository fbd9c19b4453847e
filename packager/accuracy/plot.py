"""The analysis as one page: a row and a bar for each layer, worst first, with nothing loaded from anywhere."""

from __future__ import annotations

from html import escape
from typing import Any

from packager.page_frame import frame, scrolled

_BEST = 70.0  # dB at which a bar ends
_BAD, _FAIR = 25.0, 40.0  # dB


def page(model: str, document: dict[str, Any]) -> str:
    """The HTML of an analysis document: the longer the bar, the more noise that layer makes alone."""
    layers, whole = document["layers"], document["whole"]
    title = f"Where INT8 loses: {model}"
    scored = whole["drop"] is not None
    head = ["layer", "operator", "noise it makes alone", "dB", *([unit_words(document)] if scored else [])]
    head += ["worst output band", "dB", "M multiply-adds", "weights"]
    numbers = {"dB", unit_words(document), "M multiply-adds", "weights"}
    heads = "".join(f'<th class="n">{one}</th>' if one in numbers else f"<th>{one}</th>" for one in head)
    rows = "\n".join(_row(row, document) for row in layers)
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>\n{rows}\n</tbody></table>"
    return frame(
        title,
        f"<h1>{escape(title)}</h1>\n{_whole(document)}\n"
        '<p class="soft">Each row: that layer in INT8, all others in float. The longer the bar, the more noise it makes; '
        "dB: signal over noise, more is better. The worst output band stands apart: a whole tensor hides a dead one.</p>\n"
        f'<p class="key"><span><i class="bad"></i>below {_BAD:g} dB</span><span><i class="fair"></i>below {_FAIR:g} dB</span>'
        f"<span><i></i>{_FAIR:g} dB and more</span></p>\n{scrolled(table, 'layers, worst first')}",
    )


def unit_words(document: dict[str, Any]) -> str:
    """What the drops of a document count."""
    return "points lost" if document["drop_unit"] == "points" else f"{document['metric']} lost"


def drop_words(value: float, document: dict[str, Any]) -> str:
    """A drop in its unit."""
    return f"{value:+.2f}" if document["drop_unit"] == "points" else f"{value:+.3g}"


def _whole(document: dict[str, Any]) -> str:
    whole, lost = document["whole"], ""
    if whole["drop"] is not None:
        unit = f"points of {document['metric']}" if document["drop_unit"] == "points" else f"of {document['metric']}"
        lost = f"<b>{drop_words(whole['drop'], document)}</b> {escape(unit)} lost on {document['n']} samples, "
    share = whole["int8_share"]
    return (
        f'<p class="advice">Everything in INT8: {lost}<b>{whole["sqnr_db"]:.1f} dB</b> of signal over noise in the outputs, '
        f"the worst output band {escape(whole['worst_band'])} {whole['worst_band_sqnr_db']:.1f} dB; "
        f"{share['macs']:.1%} of the multiply-adds and {share['weights']:.1%} of the weights are INT8.</p>"
    )


def _row(row: dict[str, Any], document: dict[str, Any]) -> str:
    sqnr = row["sqnr_db"]
    length = 100.0 if sqnr is None else max(0.5, 100 * (1 - min(max(sqnr, 0.0), _BEST) / _BEST))
    kind = "bad" if sqnr is None or sqnr < _BAD else "fair" if sqnr < _FAIR else ""
    bar = f'<i class="{kind}" style="width:{length:.1f}%"></i>'
    if row["broken"]:
        bar = f"<small>cannot be quantised alone: {escape(row['broken'])}</small>"
    cells = [
        f'<td class="w">{escape(row["name"])}</td><td>{escape(row["operator"])}</td><td class="bar">{bar}</td>',
        _number("" if sqnr is None else f"{sqnr:.1f}"),
    ]
    if document["whole"]["drop"] is not None:
        cells.append(_number("" if row["drop"] is None else drop_words(row["drop"], document)))
    band = row["worst_band_sqnr_db"]
    cells.append(f"<td>{escape(row['worst_band'])}</td>{_number('' if band is None else f'{band:.1f}')}")
    cells.append(_number(f"{row['macs'] / 1e6:.3f}") + _number(f"{row['weights']:,}".replace(",", " ")))
    return f"<tr>{''.join(cells)}</tr>"


def _number(text: str) -> str:
    return f'<td class="n">{text or "-"}</td>'
