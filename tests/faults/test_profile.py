"""Broken profiles, recipes and project files on the command line: what, where, and what was meant."""

import pytest

from tests.packager import models

USAGE, CONVERT = 2, 3


@pytest.fixture
def build(refused, place):
    models.classifier(place / "m.onnx")

    def call(old, new):
        target = models.profile(place, change=(old, new))
        return refused("build", "m.onnx", "-t", target, "-r", "fp32")

    return call


def test_unknown_key(build):
    status, said = build("cores = 4", "cores = 4\ncoers = 2")
    assert status == USAGE
    assert "did you mean 'cores'" in said
    assert "mine.toml" in said


def test_wrong_type(build):
    status, said = build("cores = 4", 'cores = "four"')
    assert (status, "$.cpu.cores" in said) == (USAGE, True)


def test_wrong_unit(build):
    status, said = build('ram = "8 GiB"', 'ram = "8 gigs"')
    assert (status, "$.memory.ram" in said) == (USAGE, True)


def test_not_toml(build):
    status, said = build("[cpu]", "[cpu")
    assert (status, "TOML" in said) == (USAGE, True)


def test_newer_schema(build):
    status, said = build("edgepack.profile/1", "edgepack.profile/2")
    assert (status, "update edgepack" in said) == (USAGE, True)


def test_unknown_name(refused, place):
    models.classifier(place / "m.onnx")
    status, said = refused("build", "m.onnx", "-t", "rasberry-pi-5")
    assert (status, "did you mean 'raspberry-pi-5'" in said) == (USAGE, True)


def test_no_such_file(refused, place):
    models.classifier(place / "m.onnx")
    assert refused("build", "m.onnx", "-t", "./nothing.toml")[0] == USAGE


def test_runtime_that_comes_later(refused, place):
    models.classifier(place / "m.onnx")
    status, said = refused("build", "m.onnx", "-t", models.later_runtime(place))
    assert (status, "cannot build for the runtime 'abacus'" in said) == (CONVERT, True)


def test_runtime_that_the_profile_lacks(refused, place):
    models.classifier(place / "m.onnx")
    status, said = refused("build", "m.onnx", "-t", "raspberry-pi-5", "--runtime", "tensorrt", "-r", "fp32")
    assert (status, "raspberry-pi-5" in said) == (USAGE, True)


def test_unknown_recipe(refused, place):
    models.classifier(place / "m.onnx")
    status, said = refused("build", "m.onnx", "-t", "raspberry-pi-5", "-r", "int9")
    assert (status, "did you mean 'int8'" in said) == (USAGE, True)


def test_broken_project_file(refused, place):
    (place / "edgepack.toml").write_text('modle = "m.onnx"\n')
    status, said = refused("build", "-t", "raspberry-pi-5")
    assert (status, "did you mean 'model'" in said) == (USAGE, True)
