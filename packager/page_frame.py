"""What every page that edgepack writes has in common: one HTML file, its style inside, nothing fetched, nothing run."""

from __future__ import annotations

from html import escape
from pathlib import Path

from agent.contract.errors import UsageError


def style() -> str:
    """The style sheet: light, dark, phone and print are one."""
    return Path(__file__).with_name("page.css").read_text(encoding="utf-8")


def frame(title: str, body: str) -> str:
    """The whole page around `body`, which is HTML; `title` is text."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none';style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{style()}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def write(path: Path, text: str) -> None:
    """Writes a page, and the folder that it stands in. Raises UsageError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"the page cannot be written: {error.strerror or error}",
            where=str(path),
            fix="choose another -o",
            code="output",
        ) from error


def scrolled(table: str, name: str) -> str:
    """A table that scrolls by itself where the screen is narrower."""
    return f'<div class="wide" tabindex="0" role="region" aria-label="{escape(name)}">{table}</div>'
