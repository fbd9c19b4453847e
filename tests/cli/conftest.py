"""Fixtures: the command, run in this process, with a home of the test's own."""

import dataclasses
import json

import pytest

from packager.cli.main import run
from tests.packager import models


@dataclasses.dataclass
class Done:
    """What a command left."""

    status: int
    out: str
    err: str

    @property
    def json(self):
        """The one document on stdout."""
        return json.loads(self.out)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The current folder, empty; the user's data go into a folder beside it."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("DATA", "CONFIG", "CACHE", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / "home" / name.lower()))
    return here


@pytest.fixture
def edgepack(place, capfd):
    """Runs one command line."""

    def call(*arguments):
        capfd.readouterr()
        status = run([str(argument) for argument in arguments])
        return Done(status, *capfd.readouterr())

    return call


@pytest.fixture
def model(place):
    return models.classifier(place / "tiny.onnx")


@pytest.fixture
def npz(place):
    return models.samples(place / "samples.npz")


@pytest.fixture
def bundle(edgepack, model, npz):
    done = edgepack("build", "tiny.onnx", "-t", "raspberry-pi-5", "-c", "samples.npz", "-o", "b.edgepack")
    assert done.status == 0, done.err
    return npz.parent / "b.edgepack"
