"""Reports kept on the host: SQLite under the platform's data folder, or a team's PostgreSQL; each report whole, a few
columns to find it by.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from agent.contract import codec
from agent.contract.errors import ContractError, UsageError
from agent.contract.report import Report
from packager.results.database import Database
from packager.results.tables import SERIES, Series, row_of, tables
from packager.results.waiting import WaitingRoom

if TYPE_CHECKING:
    import sqlalchemy as sa

T = TypeVar("T")
ADDRESS = "EDGEPACK_RESULTS"
WAITS = 0
"""The number of a report that no database has yet; runs are numbered from 1."""
_FILE = "sqlite:///"


@dataclasses.dataclass(frozen=True)
class Stored:
    """A report with its number, the device as it was addressed, and the host's time when it was stored."""

    run: int
    stored_unix: float
    device: str
    report: Report


@dataclasses.dataclass(frozen=True)
class Row:
    """A run as the table's columns tell it, the document unread. p50 and p95 are in the series' unit."""

    run: int
    stored_unix: float
    series: Series
    version: str
    bundle: str
    n: int
    p50: float | None
    p95: float | None
    model_bytes: int | None


@dataclasses.dataclass(frozen=True)
class Baseline:
    """The run that its series is held against."""

    series: Series
    run: int
    set_unix: float
    note: str


def default_path() -> Path:
    """The database's place, when no address is given."""
    import platformdirs

    return platformdirs.user_data_path("edgepack") / "results.sqlite"


class ResultStore:
    """The reports of this user, or of a team. Raises UsageError when the database cannot be used; only `add` does not, which
    keeps the report in a file until it can.

    The database is `path`; or `address` (`postgresql://USER@HOST/NAME`, `sqlite:///FILE`, a path), the environment's
    EDGEPACK_RESULTS, `default_path()`. `unreadable` holds what `newest` had to leave out, `notes` what whoever called
    should be told.
    """

    def __init__(self, path: Path | None = None, address: str = "", *, patience: float = 10.0) -> None:
        text = address or os.environ.get(ADDRESS, "")
        place = path or _file(text)
        self._database = Database(place if place is not None else text, patience=patience, ours=not (path or text))
        self.path = self._database.path
        self._waiting = WaitingRoom(self._database.name, None if path is None else path.parent / "waiting")
        self.unreadable: list[tuple[int, str]] = []
        self.notes: list[str] = []

    @property
    def name(self) -> str:
        """The database's address, without a password."""
        return self._database.name

    def add(self, report: Report, device: str) -> int:
        """Keeps the report; its run number. A report that is here already keeps its number.

        When the database cannot be used the number is `WAITS`, and a note says where the report waits; the next call that
        reaches the database stores it.
        """
        now = time.time()
        try:
            return self._write(lambda connection: self._insert(connection, report, device, now))
        except UsageError as error:
            self._keep(report, device, now, error)
            return WAITS

    def get(self, run: int) -> Stored:
        """One report. Raises UsageError when there is none of this number, ContractError for one of another form."""
        (found,) = self.some([run])
        return found

    def some(self, runs: Sequence[int]) -> list[Stored]:
        """These reports, in this order. Raises like `get`."""
        import sqlalchemy as sa

        reports = tables().reports
        with self._read() as connection:
            query = _stored_columns().where(reports.c.run.in_(runs))
            rows = {row.run: row for row in connection.execute(query)}
            if len(rows) < len(set(runs)):
                newest = connection.execute(sa.select(sa.func.max(reports.c.run))).scalar()
                missing = ", ".join(str(run) for run in runs if run not in rows)
                raise UsageError(
                    f"there is no run {missing}",
                    where=self.name,
                    expected=f"a number up to {newest}" if newest else "",
                    fix="edgepack results list",
                    code="no-run",
                )
        return [_stored(rows[run]) for run in runs]

    def newest(self, most: int = 50) -> list[Stored]:
        """The newest reports, newest first. Those of another version's form are left out and told in `unreadable`."""
        found = []
        self.unreadable = []
        with self._read() as connection:
            for row in connection.execute(_stored_columns().order_by(tables().reports.c.run.desc()).limit(most)):
                try:
                    found.append(_stored(row))
                except ContractError as error:
                    self.unreadable.append((int(row.run), error.what + (f"; {error.fix}" if error.fix else "")))
        return found

    def rows(self, **wanted: Any) -> list[Row]:
        """All runs, oldest first, their documents unread. `wanted` are fields of Series, those that are None left out."""
        import sqlalchemy as sa

        reports = tables().reports
        columns = [column for column in reports.c if column.name not in {"document", "job"}]
        query = sa.select(*columns).order_by(reports.c.run)
        for word, value in wanted.items():
            if value is not None:
                query = query.where(reports.c[word] == value)
        with self._read() as connection:
            return [_row(row) for row in connection.execute(query)]

    def delete(self, runs: Collection[int]) -> None:
        """Forgets these runs. Raises UsageError when one of them is a baseline, and deletes none."""
        import sqlalchemy as sa

        reports, baselines = tables().reports, tables().baselines

        def work(connection: sa.Connection) -> None:
            held = list(connection.execute(sa.select(baselines.c.run).where(baselines.c.run.in_(runs))).scalars())
            if held:
                raise UsageError(
                    f"run {', '.join(map(str, held))} is a baseline",
                    fix=f"edgepack results baseline remove {held[0]}",
                    code="baseline",
                )
            for run in runs:
                connection.execute(sa.delete(reports).where(reports.c.run == run))

        self._write(work)

    def set_baseline(self, run: int, series: Series, note: str = "") -> None:
        """From now on its series is held against this run; it replaces the one before."""
        import sqlalchemy as sa

        table, values = tables().baselines, dataclasses.asdict(series)

        def work(connection: sa.Connection) -> None:
            connection.execute(sa.delete(table).where(*(table.c[word] == values[word] for word in SERIES)))
            connection.execute(sa.insert(table).values(**values, run=run, set_unix=time.time(), note=note))

        self._write(work)

    def remove_baseline(self, run: int) -> bool:
        """The run is no baseline any more; whether it was one."""
        import sqlalchemy as sa

        table = tables().baselines
        gone = sa.delete(table).where(table.c.run == run)
        return self._write(lambda connection: connection.execute(gone).rowcount > 0)

    def baselines(self) -> list[Baseline]:
        """All of them, by run."""
        import sqlalchemy as sa

        table = tables().baselines
        with self._read() as connection:
            rows = list(connection.execute(sa.select(table).order_by(table.c.run)))
        return [Baseline(_series(row), row.run, row.set_unix, row.note) for row in rows]

    def baseline(self, series: Series) -> Baseline | None:
        """The one of this series."""
        return next((one for one in self.baselines() if one.series == series), None)

    def _insert(self, connection: sa.Connection, report: Report, device: str, when: float) -> int:
        import sqlalchemy as sa

        reports = tables().reports
        by_job = sa.select(reports.c.run).where(reports.c.job == report.job)
        found = connection.execute(by_job).scalar()
        if found is not None:
            return int(found)
        try:
            with connection.begin_nested():
                key = connection.execute(sa.insert(reports).values(**row_of(report, device, when))).inserted_primary_key
        except sa.exc.IntegrityError:  # another process has stored it in between
            return int(connection.execute(by_job).scalar_one())
        return int(key[0]) if key else WAITS

    def _keep(self, report: Report, device: str, when: float, error: UsageError) -> None:
        try:
            path = self._waiting.keep(report, device, when)
        except OSError as full:
            error.fix += f"\nnor can the report wait in {self._waiting.folder}: {full}"
            raise error from full
        self.notes.append(
            f"{error}\n  the report waits in {path}\n  it is stored by the next command that reaches the database:"
            " edgepack results list"
        )

    def _write(self, work: Callable[[sa.Connection], T]) -> T:
        """`work` in a transaction. What waited goes in first; a corrupt database is moved aside, and a new one begun."""
        try:
            return self._transaction(work)
        except UsageError as error:
            if error.code != "database-corrupt" or not self._move_aside(error):
                raise
            self.notes.append(str(error))
        return self._transaction(work)

    def _transaction(self, work: Callable[[sa.Connection], T]) -> T:
        with self._database.connect(write=True) as connection:
            taken = self._take_waiting(connection)
            result = work(connection)
        self._taken(taken)
        return result

    @contextlib.contextmanager
    def _read(self) -> Iterator[sa.Connection]:
        """A transaction. A corrupt database is moved aside, and the error says so."""
        if self._waiting.count():
            with contextlib.suppress(UsageError):  # whether the database can be read is told below
                self._write(lambda _: None)
        try:
            with self._database.connect() as connection:
                yield connection
        except UsageError as error:
            if error.code == "database-corrupt":
                self._move_aside(error)
            raise

    def _move_aside(self, error: UsageError) -> bool:
        aside = self._database.move_aside()
        if aside is None:
            return False
        error.what += f"; it was moved aside to {aside}, nothing of it is deleted, and a new one is begun"
        error.fix = f"recover what can be: sqlite3 {aside} .recover"
        return True

    def _take_waiting(self, connection: sa.Connection) -> list[tuple[Path, int]]:
        taken = []
        for path, one in self._waiting.all():
            if isinstance(one, str):
                self.notes.append(f"a waiting report cannot be read and stays where it is: {one}")
            else:
                taken.append((path, self._insert(connection, one.report, one.device, one.stored_unix)))
        return taken

    def _taken(self, taken: list[tuple[Path, int]]) -> None:
        for path, _ in taken:
            path.unlink(missing_ok=True)
        if taken:
            runs = ", ".join(str(run) for _, run in taken)
            self.notes.append(f"{len(taken)} reports that waited are stored now: runs {runs}")


def _file(text: str) -> Path | None:
    """The file that an address names; None for a server's."""
    if not text:
        return default_path()
    if text.startswith(_FILE):
        return Path(text.removeprefix(_FILE))
    first = text.split("/", maxsplit=1)[0]
    return None if ":" in first or (first and "//" in text) else Path(text)


def _stored_columns() -> Any:
    import sqlalchemy as sa

    reports = tables().reports
    return sa.select(reports.c.run, reports.c.stored_unix, reports.c.device, reports.c.document)


def _stored(row: Any) -> Stored:
    report = codec.loads(Report, row.document, source=f"run {row.run}")
    return Stored(run=int(row.run), stored_unix=row.stored_unix, device=row.device, report=report)


def _series(row: Any) -> Series:
    return Series(**{word: getattr(row, word) for word in SERIES})


def _row(row: Any) -> Row:
    words = ("run", "stored_unix", "version", "bundle", "n", "p50", "p95", "model_bytes")
    return Row(series=_series(row), **{word: getattr(row, word) for word in words})
