"""Reports kept on the host: SQLite under the platform's data folder, each report whole, a few columns to find it by."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from agent.contract import codec
from agent.contract.errors import ContractError, UsageError
from agent.contract.report import Report

_SCHEMA_VERSION = 1
_TABLE = """
create table if not exists reports (
    run integer primary key autoincrement,
    stored_unix real not null,
    job text not null unique,
    device text not null,
    bundle text not null,
    name text not null,
    target text not null,
    recipe text not null,
    document text not null
)
"""


@dataclasses.dataclass(frozen=True)
class Stored:
    """A report with its number, the device as it was addressed, and the host's time when it was stored."""

    run: int
    stored_unix: float
    device: str
    report: Report


def default_path() -> Path:
    """The database's place."""
    import platformdirs

    return platformdirs.user_data_path("edgepack") / "results.sqlite"


class ResultStore:
    """The reports of this user. Raises UsageError when the database cannot be used."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or default_path()
        self.unreadable: list[tuple[int, str]] = []

    def add(self, report: Report, device: str) -> int:
        """Keeps the report; its run number. A report that is here already keeps its number."""
        text = codec.dumps(report)
        row = (time.time(), report.job, device, report.bundle, report.name, report.target, report.recipe, text)
        with self._open() as database:
            found = database.execute("select run from reports where job = ?", (report.job,)).fetchone()
            if found:
                return int(found[0])
            done = database.execute(
                "insert into reports (stored_unix, job, device, bundle, name, target, recipe, document) "
                "values (?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            return int(done.lastrowid or 0)

    def get(self, run: int) -> Stored:
        """One report. Raises UsageError when there is none of this number."""
        with self._open() as database:
            row = database.execute(
                "select run, stored_unix, device, document from reports where run = ?", (run,)
            ).fetchone()
        if row is None:
            raise UsageError(f"there is no run {run}", fix="edgepack results list", code="no-run")
        return _stored(row)

    def newest(self, most: int = 50) -> list[Stored]:
        """The newest reports, newest first. Those of another version's form are left out and told in `unreadable`."""
        with self._open() as database:
            rows = database.execute(
                "select run, stored_unix, device, document from reports order by run desc limit ?", (most,)
            ).fetchall()
        found = []
        self.unreadable = []
        for row in rows:
            try:
                found.append(_stored(row))
            except ContractError as error:
                self.unreadable.append((int(row[0]), error.what))
        return found

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(self.path, timeout=10)
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from error
        try:
            with database:
                version = database.execute("pragma user_version").fetchone()[0]
                if version > _SCHEMA_VERSION:
                    raise UsageError(
                        f"the results were written by a newer edgepack (schema {version})",
                        where=str(self.path),
                        expected=f"schema {_SCHEMA_VERSION}",
                        fix="update edgepack",
                        code="schema",
                    )
                database.execute(_TABLE)
                database.execute(f"pragma user_version = {_SCHEMA_VERSION}")
                yield database
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        finally:
            database.close()

    def _unusable(self, error: Exception) -> UsageError:
        return UsageError(
            f"the results database cannot be used: {error}",
            where=str(self.path),
            fix="move the file aside (it is not deleted) or check its folder's permissions",
            code="database",
        )


def _stored(row: tuple[int, float, str, str]) -> Stored:
    report = codec.loads(Report, row[3], source=f"run {row[0]}")
    return Stored(run=row[0], stored_unix=row[1], device=row[2], report=report)
