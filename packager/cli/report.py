"""Stored runs as one page for the browser."""

from __future__ import annotations

from pathlib import Path

import click

from packager.cli._show import json_option, print_json
from packager.cli._store import chosen, database_option, tell


@click.command()
@click.argument("runs", nargs=-1, type=click.IntRange(1))
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The page's file.")
@click.option(
    "--most",
    "-n",
    type=click.IntRange(1, 1000),
    default=20,
    show_default=True,
    help="How many of the newest, without RUN.",
)
@database_option
@json_option
def command(runs: tuple[int, ...], output: Path, most: int, database: str, *, as_json: bool) -> None:
    """RUNs as one self-contained page, which needs no network; without RUN the newest.

    Numbers with their intervals and findings, plots with a table each, where the numbers come from, and the command that
    measures the same again.
    """
    from packager.results.page.write import write_page
    from packager.results.store import ResultStore

    store = ResultStore(address=database)
    shown = chosen(store, tuple(dict.fromkeys(runs)), most)
    size = write_page(shown, output)
    tell(store)
    if as_json:
        print_json({"page": str(output), "bytes": size, "runs": [one.run for one in shown]})
    else:
        click.echo(f"{output}: {len(shown)} runs, {size / 1e3:.0f} kB")
