"""What verbs share: talk on stderr, data on stdout, tables for people, JSON for machines."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from agent.contract.finding import Finding

_WIDE = 160
_COLORS = {"error": "bold red", "warning": "yellow", "info": "cyan"}


def json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """--json."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")(function)


def print_json(document: Any) -> None:
    """The document on stdout. NaN is no JSON and would be our bug."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


def console(*, err: bool = False) -> Any:
    """A rich console; wide when nobody looks at it, so that nothing is cut."""
    from rich.console import Console

    stream = sys.stderr if err else sys.stdout
    return Console(stderr=err, width=None if stream.isatty() else _WIDE, highlight=False, soft_wrap=False)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "", right: Sequence[int] = ()) -> None:
    """A table on stdout; `right` names the columns of numbers."""
    from rich.table import Table
    from rich.text import Text

    made = Table(title=title or None, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for index, column in enumerate(columns):
        made.add_column(column, justify="right" if index in right else "left", overflow="fold", no_wrap=index in right)
    for row in rows:
        made.add_row(*[Text(cell) for cell in row])
    console().print(made)


def show_findings(findings: Sequence[Finding], *, err: bool = False) -> None:
    """Every doubt, with its advice."""
    from rich.text import Text

    out = console(err=err)
    for finding in findings:
        text = Text(f"{finding.level}: ", style=_COLORS.get(finding.level, "")) + Text(finding.message, style="")
        if finding.advice:
            text.append(f"\n    {finding.advice}", style="dim")
        out.print(text, soft_wrap=True)


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """A function that says on stderr what is being done: a spinner on a terminal, lines elsewhere."""
    if not sys.stderr.isatty():
        yield lambda message: click.echo(f"edgepack: {message}", err=True)
        return
    from rich.markup import escape

    with console(err=True).status("starting") as status:
        yield lambda message: status.update(escape(message))


def mb(size: float | None) -> str:
    """Bytes as MB or kB (powers of ten); the few as they are."""
    if size is None:
        return "-"
    if size < 100:  # noqa: PLR2004 - 0.1 kB
        return f"{size:.0f} B"
    return f"{size / 1e6:.2f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"  # noqa: PLR2004 - a megabyte


def ms(value: float | None) -> str:
    """Milliseconds to three digits after the point."""
    return "-" if value is None else f"{value:.3f}"
