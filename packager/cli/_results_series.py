"""`results baseline`, `results history`, `results prune`, `results export`: what spans many runs."""

from __future__ import annotations

import dataclasses
import datetime as dt
import time
from typing import TYPE_CHECKING, Any

import click

from packager.cli._show import json_option, print_json, table
from packager.cli._store import chosen, database_option, tell

if TYPE_CHECKING:
    from packager.results.history import Change
    from packager.results.store import Baseline, ResultStore, Row
    from packager.results.tables import Series

_DAY = 86400.0


def series_options(function: Any) -> Any:
    """The filters of a history."""
    for word in ("runtime", "device", "recipe"):
        function = click.option(f"--{word}", default=None, help=f"Only runs with this {word}.")(function)
    return click.argument("model", required=False)(function)


def day(unix: float) -> str:
    """Local time to the minute."""
    return dt.datetime.fromtimestamp(unix).astimezone().strftime("%Y-%m-%d %H:%M")


def title(series: Series) -> str:
    """A series in one line."""
    threads = f"{series.threads} threads" if series.threads else "default threads"
    where = series.device if series.device == series.hostname else f"{series.device} ({series.hostname})"
    return f"{series.name} {series.recipe} for {series.target} on {where}: {series.runtime}, {threads}, p50 in {series.unit}"


@click.group()
def baseline() -> None:
    """The run that later ones of the same model, device and runtime are held against."""


@baseline.command("set")
@click.argument("run", type=click.IntRange(1))
@click.option("--note", default="", help="Why this one.")
@database_option
@json_option
def set_(run: int, note: str, database: str, *, as_json: bool) -> None:
    """RUN becomes the baseline of its model, recipe, device and runtime."""
    from packager.results.store import ResultStore
    from packager.results.tables import series_of

    store = ResultStore(address=database)
    one = store.get(run)
    series = series_of(one.report, one.device)
    before = store.baseline(series)
    store.set_baseline(run, series, note)
    tell(store)
    if as_json:
        replaced = before.run if before else None
        print_json({"run": run, "replaced": replaced, "note": note, "series": dataclasses.asdict(series)})
    else:
        click.echo(f"run {run} is the baseline of {title(series)}" + (f" (was run {before.run})" if before else ""))


@baseline.command("show")
@series_options
@database_option
@json_option
def show(model: str | None, database: str, *, as_json: bool, **wanted: str | None) -> None:
    """The baselines, and the newest run of each series beside them."""
    from packager.results.store import ResultStore

    store = ResultStore(address=database)
    wanted = {"name": model, **wanted}
    found = [one for one in store.baselines() if all(v in (None, getattr(one.series, k)) for k, v in wanted.items())]
    documents = [_against(store, one) for one in found]
    tell(store)
    if as_json:
        print_json(documents)
        return
    for one, told in zip(found, documents, strict=True):
        click.echo(title(one.series))
        note = f"  {one.note}" if one.note else ""
        click.echo(f"  baseline: run {one.run}, p50 {told['p50']:.4g}, set {day(one.set_unix)}{note}")
        if told["newest"]:
            click.echo(
                f"  newest: run {told['newest']}, p50 {told['newest_p50']:.4g}, {told['ratio']:.3f} of the baseline's"
            )
        for text in told["changed"]:
            click.echo(f"    changed since: {text}")
    if not found:
        click.echo("no baseline: edgepack results baseline set RUN", err=True)


def _against(store: ResultStore, one: Baseline) -> dict[str, Any]:
    from packager.results.history import what_changed

    rows = [row for row in store.rows(**dataclasses.asdict(one.series)) if row.p50 is not None]
    own = next(row for row in rows if row.run == one.run)
    last = rows[-1] if rows[-1].run != one.run else None
    changed: list[str] = []
    if last is not None:
        before, after = store.some([one.run, last.run])
        changed = what_changed(before.report, after.report)
    return {
        "run": one.run,
        "note": one.note,
        "set_unix": one.set_unix,
        "series": dataclasses.asdict(one.series),
        "p50": own.p50,
        "newest": last.run if last else None,
        "newest_p50": last.p50 if last else None,
        "ratio": last.p50 / own.p50 if last and last.p50 and own.p50 else None,
        "changed": changed,
    }


@baseline.command("remove")
@click.argument("run", type=click.IntRange(1))
@database_option
def remove(run: int, database: str) -> None:
    """RUN is no baseline any more; the run itself stays."""
    from agent.contract.errors import UsageError
    from packager.results.store import ResultStore

    store = ResultStore(address=database)
    if not store.remove_baseline(run):
        raise UsageError(f"run {run} is no baseline", fix="edgepack results baseline show", code="no-baseline")
    tell(store)
    click.echo(f"run {run} is no baseline any more")


@click.command()
@series_options
@database_option
@json_option
def history(model: str | None, database: str, *, as_json: bool, **wanted: str | None) -> None:
    """The medians of each model, device and runtime over time, and where their level changed.

    A step is named when its chance is below 1 % and it is at least 2 %; it takes ten runs to tell one.
    """
    from packager.results.history import by_series, changes
    from packager.results.store import ResultStore

    store = ResultStore(address=database)
    baselines = {one.run for one in store.baselines()}
    documents = []
    for series, rows in by_series(store.rows(name=model, **wanted)).items():
        found = changes(rows)
        told = [{**dataclasses.asdict(one), "changed": _changed(store, one)} for one in found]
        documents.append({"series": dataclasses.asdict(series), "runs": [_run(row) for row in rows], "changes": told})
        if not as_json:
            _show(series, rows, told, baselines)
    tell(store)
    if as_json:
        print_json(documents)


def _changed(store: ResultStore, change: Change) -> list[str]:
    from packager.results.history import what_changed

    before, after = store.some([change.before, change.run])
    return what_changed(before.report, after.report)


def _run(row: Row) -> dict[str, Any]:
    words = ("run", "stored_unix", "version", "bundle", "n", "p50", "p95", "model_bytes")
    return {word: getattr(row, word) for word in words}


def _show(series: Series, rows: list[Row], told: list[dict[str, Any]], baselines: set[int]) -> None:
    from packager.results.history import LEAST

    steps = {one["run"]: one for one in told}
    lines = []
    for row in rows:
        marks = ["baseline"] if row.run in baselines else []
        if row.run in steps:
            step = steps[row.run]
            why = "; ".join(step["changed"]) or "nothing else is known to have changed"
            marks.append(f"level x{step['ratio']:.3f} from here (p {step['p']:.3f}); {why}")
        lines.append([str(row.run), day(row.stored_unix), row.version, f"{row.p50:.4g}", str(row.n), "; ".join(marks)])
    table(["run", "stored", "version", "p50", "n", ""], lines, title=title(series), right=[0, 3, 4])
    if len(rows) < LEAST:
        click.echo(f"{len(rows)} runs: a change of level can be told from {LEAST} on")


@click.command()
@click.option(
    "--keep", type=click.IntRange(0), help="So many of the newest of each model (or pair), device and runtime stay."
)
@click.option("--older-than", type=click.FloatRange(0), metavar="DAYS", help="Only what was stored before.")
@click.option("--dry-run", is_flag=True, help="Names the runs and forgets none.")
@database_option
@json_option
def prune(keep: int | None, older_than: float | None, database: str, *, dry_run: bool, as_json: bool) -> None:
    """Forget old runs and comparisons. With both conditions one must meet both; baselines always stay."""
    from agent.contract.errors import UsageError
    from packager.results.history import doomed, doomed_comparisons
    from packager.results.pairings import PairingStore

    if keep is None and older_than is None:
        raise UsageError("nothing says which runs may go", fix="--keep N, --older-than DAYS, or both", code="no-rule")
    store = PairingStore(address=database)
    held = [one.run for one in store.baselines()]
    limit, now = None if older_than is None else older_than * _DAY, time.time()
    runs = doomed(store.rows(), held, keep=keep, older_than=limit, now=now)
    comparisons = doomed_comparisons(store.comparison_rows(), keep=keep, older_than=limit, now=now)
    if not dry_run:
        store.delete(runs)
        store.delete_comparisons(comparisons)
    tell(store)
    if as_json:
        print_json({"runs": runs, "comparisons": comparisons, "deleted": not dry_run})
        return
    for word, gone in (("runs", runs), ("comparisons", comparisons)):
        numbers = f": {', '.join(map(str, gone))}" if gone else ""
        click.echo(f"{len(gone)} {word} {'would be' if dry_run else 'are'} forgotten{numbers}")


@click.command()
@click.argument("kind", type=click.Choice(["csv", "json", "parquet", "mlflow"]))
@click.argument("runs", nargs=-1, type=click.IntRange(1))
@click.option(
    "--output", "-o", required=True, help="The file; for mlflow the server: http://HOST:5000, sqlite:///FILE."
)
@click.option("--experiment", default="edgepack", show_default=True, help="MLflow's experiment.")
@database_option
def export(kind: str, runs: tuple[int, ...], output: str, experiment: str, database: str) -> None:
    """RUNS (all, without any) for other tools. CSV and MLflow: a row per run; JSON and Parquet: with the raw samples."""
    from packager.results.export import export as write
    from packager.results.store import ResultStore

    store = ResultStore(address=database)
    click.echo(write(chosen(store, runs, 1_000_000), kind, output, experiment))
