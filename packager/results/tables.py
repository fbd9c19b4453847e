"""The tables of the results, and the steps from each earlier form to the present one: the same for SQLite and PostgreSQL."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agent.contract import codec
from agent.contract.errors import ContractError
from agent.contract.report import Report
from packager.results.document import latency, unit_text

if TYPE_CHECKING:
    import sqlalchemy as sa

SERIES = ("name", "recipe", "target", "device", "hostname", "runtime", "provider", "threads", "unit")


@dataclasses.dataclass(frozen=True)
class Series:
    """What makes runs of one history: the model as built, the device, the runtime as it was asked to run, and the unit.

    The runtime's version is not part of it: a new version is an event in the history, not the end of it.
    """

    name: str
    recipe: str
    target: str
    device: str
    hostname: str
    runtime: str
    provider: str
    threads: int
    unit: str


@dataclasses.dataclass(frozen=True)
class Tables:
    """SQLAlchemy's tables in their present form."""

    reports: sa.Table
    baselines: sa.Table
    pairings: sa.Table
    schema: sa.Table


@functools.cache
def tables() -> Tables:
    """The tables. The columns from `hostname` on are drawn from the document, so that a history need not read it."""
    import sqlalchemy as sa

    metadata = sa.MetaData()
    return Tables(
        reports=sa.Table("reports", metadata, *_first_columns(), *_drawn_columns(), sqlite_autoincrement=True),
        baselines=sa.Table(
            "baselines",
            metadata,
            *_series_columns(),
            sa.Column("run", sa.Integer, sa.ForeignKey("reports.run"), nullable=False),
            sa.Column("set_unix", sa.Double, nullable=False),
            sa.Column("note", sa.Text, nullable=False),
            sa.UniqueConstraint(*SERIES),
        ),
        pairings=sa.Table("pairings", metadata, *_pairing_columns(), sqlite_autoincrement=True),
        schema=sa.Table("edgepack_schema", metadata, sa.Column("version", sa.Integer, nullable=False)),
    )


def _first_columns() -> list[sa.Column[Any]]:
    import sqlalchemy as sa

    words = ("device", "bundle", "name", "target", "recipe", "document")
    return [
        sa.Column("run", sa.Integer, primary_key=True),
        sa.Column("stored_unix", sa.Double, nullable=False),
        sa.Column("job", sa.Text, nullable=False, unique=True),
        *(sa.Column(word, sa.Text, nullable=False) for word in words),
    ]


def _drawn_columns() -> list[sa.Column[Any]]:
    import sqlalchemy as sa

    words = ("hostname", "runtime", "version", "provider", "unit")
    return [
        *(sa.Column(word, sa.Text, nullable=False, server_default="") for word in words),
        sa.Column("threads", sa.Integer, nullable=False, server_default="0"),
        sa.Column("n", sa.Integer, nullable=False, server_default="0"),
        sa.Column("p50", sa.Double),
        sa.Column("p95", sa.Double),
        sa.Column("model_bytes", sa.BigInteger),
    ]


def _pairing_columns() -> list[sa.Column[Any]]:
    import sqlalchemy as sa

    words = ("comparison", "device", "a_bundle", "b_bundle", "a_name", "b_name", "document")
    return [
        sa.Column("pairing", sa.Integer, primary_key=True),
        sa.Column("stored_unix", sa.Double, nullable=False),
        sa.Column("job", sa.Text, nullable=False, unique=True),
        *(sa.Column(word, sa.Text, nullable=False) for word in words),
        sa.Column("margin", sa.Double, nullable=False),
        sa.Column("looks", sa.Integer, nullable=False),  # 0: one look, at 95 %
    ]


def _series_columns() -> list[sa.Column[Any]]:
    import sqlalchemy as sa

    return [sa.Column(word, sa.Integer if word == "threads" else sa.Text, nullable=False) for word in SERIES]


def drawn(report: Report) -> dict[str, Any]:
    """The columns that are drawn from a report; p50 and p95 in milliseconds or instructions, as `unit` says."""
    numbers = latency(report)
    return {
        "hostname": report.facts.hostname,
        "runtime": report.runtime.name,
        "version": report.runtime.version,
        "provider": report.runtime.provider,
        "threads": report.runtime.threads,
        "unit": unit_text(report),
        "n": numbers["n"],
        "p50": numbers[f"p50_{numbers['unit']}"],
        "p95": numbers[f"p95_{numbers['unit']}"],
        "model_bytes": report.model_bytes,
    }


def row_of(report: Report, device: str, stored_unix: float) -> dict[str, Any]:
    """A report as a row, without its number."""
    return {
        "stored_unix": stored_unix,
        **row_words(report, device),
        "document": codec.dumps(report),
        **drawn(report),
    }


def series_of(report: Report, device: str) -> Series:
    """The history that the report belongs to."""
    row = {**row_words(report, device), **drawn(report)}
    return Series(**{word: row[word] for word in SERIES})


def row_words(report: Report, device: str) -> dict[str, Any]:
    """The columns that name the report."""
    words = ("job", "bundle", "name", "target", "recipe")
    return {"device": device, **{word: getattr(report, word) for word in words}}


def _first(connection: sa.Connection) -> None:
    # As the versions before SQLAlchemy made it; theirs is left as it is.
    import sqlalchemy as sa

    table = sa.Table("reports", sa.MetaData(), *_first_columns(), sqlite_autoincrement=True)
    table.create(connection, checkfirst=True)


def _columns_and_baselines(connection: sa.Connection) -> None:
    import sqlalchemy as sa

    reports = tables().reports
    for column in _drawn_columns():
        made = sa.schema.CreateColumn(reports.c[column.name]).compile(dialect=connection.dialect)
        connection.exec_driver_sql(f"alter table reports add column {made}")
    connection.execute(sa.schema.CreateTable(tables().baselines))
    connection.execute(sa.schema.CreateIndex(sa.Index("reports_by_series", reports.c.name, reports.c.device)))
    runs = list(connection.execute(sa.select(reports.c.run)).scalars())
    for run in runs:  # one at a time: a report may hold a million samples
        text = connection.execute(sa.select(reports.c.document).where(reports.c.run == run)).scalar_one()
        try:
            values = drawn(codec.loads(Report, text))
        except ContractError:
            values = {"unit": _unreadable(text)}
        connection.execute(sa.update(reports).where(reports.c.run == run).values(**values))


def _unreadable(text: str) -> str:
    """The unit of a report of another form: none, so that it stands in nobody's history; it stays whole in its row."""
    try:
        return f"unreadable: {json.loads(text).get('schema')}"
    except (ValueError, AttributeError):
        return "unreadable"


def _pairings(connection: sa.Connection) -> None:
    import sqlalchemy as sa

    connection.execute(sa.schema.CreateTable(tables().pairings))


MIGRATIONS: tuple[Callable[[sa.Connection], None], ...] = (_first, _columns_and_baselines, _pairings)
"""Step N leads from form N to form N + 1. A step is never changed once it is released; a change is one more step."""
