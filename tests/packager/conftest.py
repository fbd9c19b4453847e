"""Fixtures: a place of the test's own, and tiny models in it."""

import pytest

from packager import pipeline
from tests.packager import models


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The current folder, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def classifier(place):
    return models.classifier(place / "tiny.onnx")


@pytest.fixture
def npz(place):
    return models.samples(place / "samples.npz")


@pytest.fixture
def packed(place):
    """Builds with packager.build and opens the result."""

    def build(model, target="linux-x86-64", **options):
        built = pipeline.build(str(model), target, **options)
        folder = place / f"opened-{len(list(place.glob('opened-*')))}"
        opened = models.Opened(built.bundle, folder)
        opened.built = built
        return opened

    return build
