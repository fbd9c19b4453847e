"""The store, as verbs use it: by address, and with what it has to say told on stderr."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from packager.results.store import ResultStore, Stored


def database_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """--database."""
    return click.option(
        "--database",
        default="",
        metavar="ADDRESS",
        help="postgresql://USER@HOST/NAME, or a SQLite file [$EDGEPACK_RESULTS, or this user's own].",
    )(function)


def tell(store: ResultStore) -> None:
    """What the store has to say, once."""
    for note in store.notes:
        click.echo(f"edgepack: {note}", err=True)
    store.notes.clear()
    for run, why in store.unreadable:
        click.echo(f"edgepack: run {run} is of another version's form and left out: {why}", err=True)
    store.unreadable.clear()


def chosen(store: ResultStore, runs: tuple[int, ...], most: int) -> list[Stored]:
    """These runs, or without any the newest, newest first."""
    found = store.some(runs) if runs else store.newest(most)
    tell(store)
    return found
