"""Fixtures: a build that must fail, and what it may leave behind: nothing."""

import tempfile

import pytest

from packager.cli.main import run


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The current folder, empty, temporary files in a folder of their own, beside it."""
    here, temporary = tmp_path / "here", tmp_path / "temporary"
    here.mkdir()
    temporary.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    return here


@pytest.fixture
def refused(place, capfd):
    """Runs a command that must fail: its exit code and its message. Nothing may be written, printed or left over."""

    def call(*arguments):
        before = sorted(place.rglob("*"))
        status = run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        assert status, "the command did not fail"
        assert out == ""
        assert "Traceback" not in err
        assert "this is a bug" not in err
        assert sorted(place.rglob("*")) == before
        assert list((place.parent / "temporary").iterdir()) == []
        return status, err

    return call
