"""`results comparisons`: what `edgepack compare` has measured, kept with all its samples."""

from __future__ import annotations

import datetime as dt

import click

from packager.cli._show import json_option, print_json, table
from packager.cli._store import database_option, tell


@click.command()
@click.argument("number", type=click.IntRange(1), required=False)
@database_option
@json_option
def comparisons(number: int | None, database: str, *, as_json: bool) -> None:
    """The stored comparisons, or NUMBER as `compare` showed it; with --json all its samples, too."""
    from packager.cli.compare import show
    from packager.compare import document
    from packager.compare.run import again
    from packager.results.pairings import PairingStore

    store = PairingStore(address=database)
    kept = [store.comparison(number)] if number is not None else store.comparisons()
    tell(store)
    found = [(one, again(one.device, one.pairings, one.margin, one.looks)) for one in kept]
    if number is not None and not as_json:
        show(found[0][1], [], number)
        return
    if as_json:
        whole = number is not None
        documents = [
            {"comparison": one.number, "stored_unix": one.stored_unix, **document.document(seen, [], samples=whole)}
            for one, seen in found
        ]
        print_json(documents[0] if whole else documents)
        return
    rows = []
    for one, seen in found:
        judged = seen.judgement
        ratio = f"{judged.ratio.estimate:.3f} ({judged.ratio.low:.3f} to {judged.ratio.high:.3f})"
        when = dt.datetime.fromtimestamp(one.stored_unix).astimezone().strftime("%Y-%m-%d %H:%M")
        names = [f"{side.name} {side.recipe}" for side in (seen.a, seen.b)]
        rows.append([str(one.number), when, one.device, *names, judged.verdict, ratio, str(judged.rounds)])
    table(["", "stored", "device", "A", "B", "verdict", "B over A", "rounds"], rows, right=[0, 7])
