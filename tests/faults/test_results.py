"""Databases that fail: a report is never lost, a file never deleted, and the error says what to do."""

import contextlib
import dataclasses
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from agent.contract.errors import UsageError
from packager.results.compare import compare
from packager.results.store import WAITS, ResultStore
from tests.house.repository import ROOT
from tests.packager.results import reports
from tests.packager.results.reports import FACTS, report


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "results.sqlite"


def waiting(path):
    return list(path.parent.rglob("waiting/*/*.json"))


def test_a_report_from_a_newer_schema(path):
    store = ResultStore(path)
    new, old = store.add(report("a"), "pi"), store.add(report("b"), "pi")
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        change = (
            "update reports set document = replace(document, 'edgepack.report/1', 'edgepack.report/2') where run = ?"
        )
        database.execute(change, (new,))
    assert [one.run for one in store.newest()] == [old]
    ((run, why),) = store.unreadable
    assert run == new
    assert "written by a newer version" in why
    with pytest.raises(UsageError, match=r"edgepack\.report/2") as caught:
        store.get(new)
    assert "update edgepack" in caught.value.fix


def test_a_database_from_a_newer_edgepack(path):
    store = ResultStore(path)
    store.add(report("a"), "pi")
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("pragma user_version = 99")
    with pytest.raises(UsageError, match="newer edgepack"):
        ResultStore(path).newest()
    later = ResultStore(path)
    assert later.add(report("b"), "pi") == WAITS, "the report waits for the edgepack that can store it"
    assert "update edgepack" in later.notes[0]


def test_a_corrupt_database_is_moved_aside(path):
    store = ResultStore(path)
    for n in range(30):
        store.add(report(f"job-{n}"), "pi")
    broken = bytearray(path.read_bytes())
    broken[4096:] = os.urandom(len(broken) - 4096)  # its header is whole, its pages are not
    path.write_bytes(broken)
    again = ResultStore(path)
    assert again.add(report("new"), "pi") == 1
    (note,) = again.notes
    assert "moved aside" in note
    assert ".recover" in note
    (aside,) = path.parent.glob("results.sqlite.corrupt-*")
    assert aside.read_bytes() == bytes(broken), "nothing of it is deleted"
    assert [one.report.job for one in ResultStore(path).newest()] == ["new"]


def test_a_corrupt_database_that_is_read(path):
    ResultStore(path).add(report("a"), "pi")
    broken = bytearray(path.read_bytes())
    broken[100:4096] = bytes(3996)
    path.write_bytes(broken)
    with pytest.raises(UsageError, match="moved aside") as caught:
        ResultStore(path).newest()
    assert caught.value.code == "database-corrupt"
    assert [aside.read_bytes() for aside in path.parent.glob("results.sqlite.corrupt-*")] == [bytes(broken)]
    assert ResultStore(path).newest() == []


def test_a_file_that_is_somebody_else_s_is_left_alone(path):
    path.write_text("this is no database" * 100)
    store = ResultStore(path)
    assert store.add(report("a"), "pi") == WAITS
    assert "not a database" in store.notes[0]
    assert path.read_text() == "this is no database" * 100
    assert len(waiting(path)) == 1


def test_a_locked_database(path):
    ResultStore(path).add(report("a"), "pi")
    store = ResultStore(path, patience=0.1)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin exclusive")
        assert store.add(report("b"), "pi") == WAITS
        assert "another process holds it" in store.notes[0]
        assert json.loads(waiting(path)[0].read_text())["device"] == "pi"
        with pytest.raises(UsageError) as caught:
            store.newest()
        assert caught.value.code == "database-locked"
    later = ResultStore(path)
    assert sorted(one.report.job for one in later.newest()) == ["a", "b"], "what waited is stored"
    assert "1 reports that waited are stored now: runs 2" in later.notes[0]
    assert waiting(path) == []


_AS_NOBODY = """
import os, sys, tempfile
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from packager.results.store import ResultStore
from tests.packager.results.reports import report
path = Path(sys.argv[2])
made = report("b")
with tempfile.TemporaryDirectory() as warm:  # another user may not read this interpreter's libraries: loaded before
    ResultStore(Path(warm) / "r.sqlite").add(made, "pi")
    ResultStore(Path(warm) / "r.sqlite").newest()
if os.geteuid() == 0:
    os.setgid(65534), os.setuid(65534)
store = ResultStore(path)
print([one.report.job for one in store.newest()])
try:
    print(store.add(made, "pi"), store.notes)
except Exception as error:
    print(type(error).__name__, error.code, error.fix)
"""


def test_a_database_on_a_read_only_disk(path, tmp_path):
    """Without the permission to write, which is what a read-only disk looks like to whoever may not override it."""
    place = tmp_path / "disk"
    place.mkdir()
    path = place / "results.sqlite"
    ResultStore(path).add(report("a"), "pi")
    path.chmod(0o444)
    place.chmod(0o555)
    for folder in [tmp_path, *tmp_path.parents]:
        if folder == Path(tempfile.gettempdir()):
            break
        folder.chmod(folder.stat().st_mode | 0o055)
    try:
        argv = [sys.executable, "-c", _AS_NOBODY, str(ROOT), str(path)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd="/")
    finally:
        place.chmod(0o755)
    assert done.returncode == 0, done.stderr
    read, wrote = done.stdout.splitlines()[0], "\n".join(done.stdout.splitlines()[1:])
    assert read == "['a']", "reading needs no permission to write"
    assert "UsageError database-read-only" in wrote, "the device keeps what the host cannot"
    assert "nor can the report wait" in wrote


@pytest.mark.skipif(not reports.HAS_POSTGRESQL, reason="PostgreSQL's server is not installed")
def test_postgresql_gone_in_the_middle(path):
    made = reports.Server()
    try:
        made.start()
        store = ResultStore(address=made.address, patience=2)
        assert store.add(report("a"), "pi") == 1
        made.stop()
        assert store.add(report("b"), "pi") == WAITS
        assert "secret" not in store.notes[0], "no password is shown"
        with pytest.raises(UsageError) as caught:
            store.newest()
        assert caught.value.code == "database-gone"
        made.start()
        later = ResultStore(address=made.address)
        stored, first = later.newest()
        assert (stored.report, first.report) == (report("b"), report("a"))
        # A server that was cut off may leave out numbers.
        assert f"stored now: runs {stored.run}" in later.notes[0]
    finally:
        made.remove()


@pytest.mark.skipif(not reports.HAS_POSTGRESQL, reason="PostgreSQL's server is not installed")
def test_postgresql_gone_within_a_transaction(path):
    made = reports.Server()
    try:
        store = ResultStore(address=made.start().address, patience=2)
        assert store.add(report("a"), "pi") == 1
        insert = store._insert

        def cut(connection, *arguments):
            run = insert(connection, *arguments)
            made.stop()
            return run

        store._insert = cut
        assert store.add(report("b"), "pi") == WAITS, "a commit that nobody confirmed is no commit"
        made.start()
        assert [one.report.job for one in ResultStore(address=made.address).newest()] == ["b", "a"]
    finally:
        made.remove()


@pytest.mark.parametrize("address", ["mysql://u:secret@h/db", "postgresql//u:secret@h", "http://u:secret@h/x"])
def test_an_address_that_is_none(path, address):
    with pytest.raises(UsageError, match="no address of a results database") as caught:
        ResultStore(address=address)
    assert "secret" not in str(caught.value)


def test_a_waiting_report_that_cannot_be_read_stays(path):
    ResultStore(path).add(report("a"), "pi")
    store = ResultStore(path)
    store._waiting.folder.mkdir(parents=True)
    bad = store._waiting.folder / "x.json"
    bad.write_text("{}")
    assert [one.report.job for one in store.newest()] == ["a"]
    assert "cannot be read and stays" in store.notes[0]
    assert bad.read_text() == "{}"


def test_comparing_across_devices(path):
    """Two stored reports of different boards, and the same board's other runtime: what differs is named."""
    there = report("b", facts=dataclasses.replace(FACTS, hostname="cellar", cpu_model="Cortex-A72"))
    with pytest.raises(UsageError, match="the device: kitchen and cellar; the processor: Cortex-A76 and Cortex-A72"):
        compare(report("a"), there)
