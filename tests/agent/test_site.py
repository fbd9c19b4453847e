"""Packages that the host brought: a set is whole or not used, and a wheel writes nothing outside it."""

import hashlib
import sys
import zipfile

import pytest

from agent import site
from agent.contract.errors import IntegrityError, UsageError
from agent.store import Store

OLD, NEW = "a" * 16, "b" * 16


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "device"))


def wheel(store, name, files):
    """A wheel that has arrived."""
    path = store.incoming / f"{name}-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def test_set_is_unpacked_and_used(store, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(site, "_ADDED", [])
    folder = site.install(store, OLD, [wheel(store, "one", {"one_of_ours/__init__.py": "x = 1"})])
    assert site.current(store.root) == folder
    site.enable(str(store.root))
    site.enable(str(store.root))
    assert site.added() == [str(folder)]
    assert sys.path[1] == str(folder)


def test_newer_set_replaces_the_older_one(store):
    old = site.install(store, OLD, [wheel(store, "one", {"one.py": ""})])
    new = site.install(store, NEW, [wheel(store, "two", {"two.py": ""})])
    assert site.current(store.root) == new
    assert (new / "two.py").exists()
    assert not old.exists()


def test_same_set_again_needs_no_wheels(store):
    wheels = [wheel(store, "one", {"one.py": ""})]
    site.install(store, OLD, wheels)
    (store.incoming / wheels[0]["file"]).unlink()
    assert (site.install(store, OLD, wheels) / "one.py").exists()


@pytest.mark.parametrize("name", ["../escaped.py", "/escaped.py", "a/../../escaped.py", "a\\..\\escaped.py"])
def test_wheel_that_reaches_outside(store, name, tmp_path):
    hostile = wheel(store, "hostile", {"fine.py": "", name: "x"})
    with pytest.raises(IntegrityError, match="holds a file"):
        site.install(store, OLD, [hostile])
    assert site.current(store.root) is None
    assert not list(tmp_path.rglob("*escaped.py"))


def test_damaged_wheel_leaves_the_older_set_in_use(store):
    folder = site.install(store, OLD, [wheel(store, "one", {"one.py": ""})])
    bad = wheel(store, "two", {"two.py": ""})
    with (store.incoming / bad["file"]).open("ab") as file:
        file.write(b"x")
    with pytest.raises(IntegrityError, match="damaged"):
        site.install(store, NEW, [bad])
    assert site.current(store.root) == folder
    assert [path.name for path in (store.root / "site").iterdir() if path.is_dir()] == [OLD]


def test_file_that_is_no_wheel(store):
    path = store.incoming / "x.whl"
    path.write_bytes(b"no zip")
    with pytest.raises(IntegrityError, match="not a whole wheel"):
        site.install(store, OLD, [{"file": "x.whl", "sha256": hashlib.sha256(b"no zip").hexdigest()}])
    assert site.current(store.root) is None


@pytest.mark.parametrize("key", ["", "../x", "A" * 16, "a" * 15, OLD + "\n"])
def test_key_that_is_no_folder_of_ours(store, key):
    with pytest.raises(UsageError, match="not a key"):
        site.install(store, key, [])


@pytest.mark.parametrize("text", ["", "../../etc", "c" * 16, "\0"])
def test_pointer_that_names_no_set(store, text):
    (store.root / "site").mkdir()
    (store.root / "site" / "current").write_text(text, encoding="utf-8")
    assert site.current(store.root) is None
