"""The store keeps what it is given: on SQLite and on PostgreSQL, from earlier forms, from several processes."""

import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest

from agent.contract import codec
from agent.contract.errors import UsageError
from packager.results.store import ResultStore
from packager.results.tables import series_of
from tests.packager.results.reports import EMULATED, report

FIRST_FORM = """
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


def test_a_report_comes_back_as_it_was(store):
    first = store.add(report("a"), "pi")
    assert store.add(report("a"), "pi") == first, "a report is kept once"
    second = store.add(report("b", emulation=EMULATED), "pi")
    assert [one.run for one in store.newest()] == [second, first]
    assert store.get(first).report == report("a")
    assert store.notes == []
    with pytest.raises(UsageError, match="no run 99"):
        store.get(99)


def test_the_columns_say_what_the_document_says(store):
    store.add(report("a", median=2_000_000), "pi")
    store.add(report("b", emulation=EMULATED), "pi")
    plain, counted = store.rows()
    assert (plain.series.unit, plain.n, plain.version) == ("ms", 360, "1.32.0")
    assert 2.0 < plain.p50 < 2.2
    assert counted.series.unit == "instructions, emulated cortex-a76"
    assert 500_000 < counted.p50 < 550_000
    assert [row.run for row in store.rows(unit="ms", name="tiny")] == [plain.run]
    assert store.rows(recipe="fp32") == []


def test_many_at_once_keep_every_report(store):
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda n: store.add(report(f"job-{n % 12}"), "pi"), range(24)))
    assert runs[:12] == runs[12:]
    assert len(set(runs)) == 12
    assert len(store.newest()) == 12


def test_a_baseline_is_one_of_its_series_and_is_not_deleted(store):
    a, b = store.add(report("a"), "pi"), store.add(report("b"), "pi")
    series = series_of(report("a"), "pi")
    store.set_baseline(a, series, "release 1")
    store.set_baseline(b, series)
    assert [(one.run, one.note) for one in store.baselines()] == [(b, "")]
    assert store.baseline(series).run == b
    with pytest.raises(UsageError, match=f"run {b} is a baseline"):
        store.delete([a, b])
    assert len(store.newest()) == 2, "nothing of a refused deletion is done"
    assert store.remove_baseline(b)
    store.delete([a, b])
    assert store.newest() == []


def test_a_database_of_the_first_form_migrates_without_loss(tmp_path):
    path = tmp_path / "results.sqlite"
    reports = [report("a"), report("b", median=3_000_000), report("c")]
    other = codec.dumps(reports[2]).replace("edgepack.report/1", "edgepack.report/0")
    texts = [codec.dumps(reports[0]), codec.dumps(reports[1]), other]
    with sqlite3.connect(path) as database:
        database.execute(FIRST_FORM)
        database.execute("pragma user_version = 1")
        for index, (one, text) in enumerate(zip(reports, texts, strict=True)):
            values = (7 + index, 1.5e9 + index, one.job, "pi", one.bundle, one.name, one.target, one.recipe, text)
            database.execute("insert into reports values (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
    database.close()
    store = ResultStore(path)
    assert [(one.run, one.stored_unix, one.report) for one in store.newest()] == [
        (8, 1.5e9 + 1, reports[1]),
        (7, 1.5e9, reports[0]),
    ]
    assert [run for run, _ in store.unreadable] == [9]
    assert [row.series.unit for row in store.rows()] == ["ms", "ms", "unreadable: edgepack.report/0"]
    with sqlite3.connect(path) as database:
        kept = [row[0] for row in database.execute("select document from reports order by run")]
        assert database.execute("pragma user_version").fetchone() == (3,)
    database.close()
    assert kept == texts, "every document is as it was, to the byte"
    assert store.add(report("d"), "pi") == 10


def test_a_migration_that_fails_leaves_the_earlier_form(tmp_path, monkeypatch):
    from packager.results import database as module

    path = tmp_path / "results.sqlite"
    with sqlite3.connect(path) as database:
        database.execute(FIRST_FORM)
        database.execute("pragma user_version = 1")
    database.close()

    def broken(connection):
        module.MIGRATIONS_BEFORE[1](connection)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "MIGRATIONS_BEFORE", module.MIGRATIONS, raising=False)
    monkeypatch.setattr(module, "MIGRATIONS", (module.MIGRATIONS[0], broken))
    with pytest.raises(UsageError, match="No space left"):
        ResultStore(path).newest()
    with sqlite3.connect(path) as database:
        assert database.execute("pragma user_version").fetchone() == (1,)
        assert "p50" not in json.dumps(database.execute("pragma table_info(reports)").fetchall())
    database.close()


def test_reading_makes_no_file(tmp_path):
    store = ResultStore(tmp_path / "none" / "results.sqlite")
    assert store.newest() == []
    assert not (tmp_path / "none").exists()
