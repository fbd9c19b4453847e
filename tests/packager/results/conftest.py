"""Fixtures: stores on SQLite and on a PostgreSQL server that the test starts."""

import pytest

from packager.results.store import ResultStore
from tests.packager.results import reports


@pytest.fixture(scope="session")
def postgresql():
    if not reports.HAS_POSTGRESQL:
        pytest.skip("PostgreSQL's server is not installed: apt-get install postgresql")
    with reports.server() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request, tmp_path, monkeypatch):
    """An empty store."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    if request.param == "sqlite":
        return ResultStore(tmp_path / "results.sqlite")
    address = request.getfixturevalue("postgresql").address
    made = ResultStore(address=address)
    with made._database.connect(write=True) as connection:
        connection.exec_driver_sql("drop schema public cascade")
        connection.exec_driver_sql("create schema public")
    return ResultStore(address=address)
