"""The results' database: opened when it is used, brought to the present form, its refusals told as what they mean."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.errors import UsageError
from packager.results.tables import MIGRATIONS, tables

if TYPE_CHECKING:
    import sqlalchemy as sa

VERSION = len(MIGRATIONS)
_CORRUPT = {"SQLITE_CORRUPT", "SQLITE_NOTADB"}
_LOCKED = {"SQLITE_BUSY", "SQLITE_LOCKED"}
_READ_ONLY = {"SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM"}
_FULL = {"SQLITE_FULL"}
_MAGIC = b"SQLite format 3\0"
_ONE_AT_A_TIME = 0x65647067  # the advisory lock under which PostgreSQL's tables are changed
_WRITE = "edgepack_write"


class Database:
    """SQLite in a file, or PostgreSQL by URL. Every error is a UsageError whose code says which: "database-locked",
    "database-read-only", "database-full", "database-corrupt", "database-gone", "schema", "database".

    `patience` is how long another process may hold the file, in seconds; `ours` says that nobody else keeps files at `path`.
    """

    def __init__(self, address: str | Path, *, patience: float = 10.0, ours: bool = False) -> None:
        self.path = address if isinstance(address, Path) else None
        self._address = str(address)
        self._patience, self._ours = patience, ours
        self._current = False  # whether the tables are known to be in the present form

    @functools.cached_property
    def name(self) -> str:
        """The address as one may show it: without a password."""
        if self.path is not None:
            return str(self.path)
        return self._url().render_as_string(hide_password=True)

    @contextlib.contextmanager
    def connect(self, *, write: bool = False) -> Iterator[sa.Connection]:
        """A transaction, committed at the end; reading a file that is not there yet finds it empty, and makes none."""
        import sqlalchemy as sa

        try:
            engine = self._engine(write=write)
            if not self._current:
                self._bring_up(engine)
            with engine.connect().execution_options(**{_WRITE: write}) as connection, connection.begin():
                yield connection
        except sa.exc.SQLAlchemyError as error:
            self._current = False
            raise self._told(error) from error
        except OSError as error:
            raise self._error(f"{error.strerror or error}", "database-read-only", _FOLDER) from error

    def _bring_up(self, engine: sa.Engine) -> None:
        """The tables in their present form. Those that are need no permission to write."""
        with engine.connect() as connection, connection.begin():
            current = self._is_current(connection)
        if not current:
            with engine.connect().execution_options(**{_WRITE: True}) as connection, connection.begin():
                if connection.dialect.name == "postgresql":
                    connection.exec_driver_sql(f"select pg_advisory_xact_lock({_ONE_AT_A_TIME})")
                migrate(connection)
        # A file that is not there was found empty in memory: the next time it may be.
        self._current = self.path is None or self.path.exists()

    def _is_current(self, connection: sa.Connection) -> bool:
        version = schema_version(connection)
        if version > VERSION:
            raise UsageError(
                f"the results were written by a newer edgepack (schema {version})",
                where=self.name,
                expected=f"schema {VERSION}",
                fix="update edgepack",
                code="schema",
            )
        return version == VERSION

    def _engine(self, *, write: bool) -> sa.Engine:
        if self.path is None:
            return self._postgresql
        if not write and not self.path.exists():
            return _sqlite("", 0.0)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self._file

    @functools.cached_property
    def _file(self) -> sa.Engine:
        return _sqlite(str(self.path), self._patience)

    @functools.cached_property
    def _postgresql(self) -> sa.Engine:
        import sqlalchemy as sa

        try:
            return sa.create_engine(
                self._url(),
                poolclass=sa.pool.NullPool,
                connect_args={"connect_timeout": max(2, round(self._patience)), "application_name": "edgepack"},
            )
        except ImportError as error:
            raise UsageError(
                f"PostgreSQL needs the extra `postgres`: {error}",
                where=self.name,
                fix="pip install 'edgepack[postgres]'",
                code="no-extra",
            ) from error

    def _url(self) -> sa.URL:
        import sqlalchemy as sa

        try:
            url = sa.make_url(self._address)
        except sa.exc.ArgumentError as error:
            # The error would show the address, and with it a password.
            raise UsageError(_NO_ADDRESS, expected=_ADDRESSES, code="database-url") from error
        if url.get_backend_name() not in {"postgresql", "postgres"}:
            shown = url.render_as_string(hide_password=True)
            raise UsageError(f"{_NO_ADDRESS}: {shown}", expected=_ADDRESSES, code="database-url")
        return url.set(drivername="postgresql+psycopg")

    def _told(self, error: Exception) -> UsageError:
        """What the database's refusal means."""
        cause: Any = getattr(error, "orig", None) or error
        said = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
        name = getattr(cause, "sqlite_errorname", "") or ""
        kind = "_".join(name.split("_")[:2])
        if self.path is None:
            return self._gone(error, said)
        if kind in _CORRUPT:
            return self._error(said, "database-corrupt", "recover what can be: sqlite3 FILE .recover")
        if kind in _LOCKED:
            return self._error(
                f"another process holds it ({said})",
                "database-locked",
                "end that process, or wait until it is done; `fuser FILE` names it",
            )
        if kind in _READ_ONLY:
            return self._error(said, "database-read-only", _FOLDER)
        if kind in _FULL:
            return self._error(said, "database-full", "free space on its disk")
        return self._error(
            said, "database", "move the file aside (it is not deleted) or check its folder's permissions"
        )

    def _gone(self, error: Exception, said: str) -> UsageError:
        import sqlalchemy as sa

        if isinstance(error, (sa.exc.OperationalError, sa.exc.InterfaceError)):
            return self._error(said, "database-gone", "see that the server runs and lets this user in")
        return self._error(said, "database", "see what the server's log says")

    def _error(self, said: str, code: str, fix: str) -> UsageError:
        return UsageError(f"the results database cannot be used: {said}", where=self.name, fix=fix, code=code)

    def move_aside(self) -> Path | None:
        """Renames a corrupt SQLite file, with the journals that belong to it, and gives its new name. None, and nothing is
        touched, when the file is no database and may be somebody's, or when it is whole after all.
        """
        path = self.path
        if path is None or not (self._ours or _looks_like_sqlite(path)):
            return None
        import fcntl

        with path.with_name(path.name + ".lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another process may have moved it meanwhile
            if not path.exists() or _whole(path):
                return None
            stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
            aside = path.with_name(f"{path.name}.corrupt-{stamp}-{os.getpid()}")
            for suffix in ("-wal", "-shm", "-journal"):
                journal = path.with_name(path.name + suffix)
                if journal.exists():
                    journal.rename(aside.with_name(aside.name + suffix))
            path.rename(aside)
        self._current = False
        return aside


_NO_ADDRESS = "this is no address of a results database"
_ADDRESSES = "postgresql://USER@HOST/DATABASE, sqlite:///FILE, or the path of a file"
_FOLDER = "check the permissions of its folder and whether the disk is mounted read-only"


def migrate(connection: sa.Connection) -> None:
    """Brings the tables to the present form, in the connection's transaction: all of it or nothing."""
    for number in range(schema_version(connection), VERSION):
        MIGRATIONS[number](connection)
        _set_version(connection, number + 1)


def schema_version(connection: sa.Connection) -> int:
    """The form of the tables; 0 when there are none."""
    import sqlalchemy as sa

    if connection.dialect.name == "sqlite":
        # In SQLite's own header, where versions before SQLAlchemy look for it and refuse what is newer.
        return int(connection.exec_driver_sql("pragma user_version").scalar_one())
    if not sa.inspect(connection).has_table(tables().schema.name):
        return 0
    return int(connection.execute(sa.select(sa.func.max(tables().schema.c.version))).scalar() or 0)


def _set_version(connection: sa.Connection, version: int) -> None:
    import sqlalchemy as sa

    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"pragma user_version = {version:d}")
        return
    table = tables().schema
    table.create(connection, checkfirst=True)
    connection.execute(sa.delete(table))
    connection.execute(sa.insert(table).values(version=version))


def _sqlite(path: str, patience: float) -> sa.Engine:
    import sqlalchemy as sa

    pool: Any = sa.pool.NullPool if path else sa.pool.StaticPool
    url = sa.URL.create("sqlite", database=path or ":memory:")
    engine = sa.create_engine(url, poolclass=pool, connect_args={"timeout": patience})

    # Transactions are begun here: the driver's own would leave the changes of tables outside.
    @sa.event.listens_for(engine, "connect")
    def _(connection: Any, _record: Any) -> None:
        connection.isolation_level = None

    @sa.event.listens_for(engine, "begin")
    def _(connection: sa.Connection) -> None:
        write = connection.get_execution_options().get(_WRITE)
        connection.exec_driver_sql("begin immediate" if write else "begin")

    return engine


def _looks_like_sqlite(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def _whole(path: Path) -> bool:
    import sqlite3

    try:
        with contextlib.closing(sqlite3.connect(path)) as database:
            return bool(database.execute("pragma quick_check(1)").fetchone()[0] == "ok")
    except sqlite3.DatabaseError as error:
        return "_".join(error.sqlite_errorname.split("_")[:2]) not in _CORRUPT
