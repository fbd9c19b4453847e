"""edgepack init: a project file that works."""

import tomllib

from tests.packager import models


def test_written_file_builds(edgepack, model, place):
    done = edgepack("init", "tiny.onnx", "--target", "linux-x86-64")
    assert (done.status, "edgepack.toml" in done.out) == (0, True)
    assert tomllib.loads((place / "edgepack.toml").read_text())["model"] == "tiny.onnx"
    assert edgepack("build", "--json").json["bundle"] == "tiny-linux-x86-64.edgepack"


def test_file_that_is_there_is_kept(edgepack, model, place):
    (place / "edgepack.toml").write_text("mine = true\n")
    done = edgepack("init", "tiny.onnx")
    assert (done.status, "--force" in done.err) == (2, True)
    assert (place / "edgepack.toml").read_text() == "mine = true\n"
    assert edgepack("init", "tiny.onnx", "--force").status == 0


def test_free_dimensions_are_shown(edgepack, place):
    models.classifier(place / "free.onnx", batch="n")
    edgepack("init", "free.onnx")
    assert 'image=nx1x8x8"' in (place / "edgepack.toml").read_text()


def test_nothing_is_written_for_a_model_that_is_none(edgepack, place):
    (place / "m.onnx").write_text("no model")
    assert edgepack("init", "m.onnx").status == 2
    assert edgepack("init", "nothing.onnx").status == 2
    assert edgepack("init", "m.onnx", "--target", "nowhere").status == 2
    assert not (place / "edgepack.toml").exists()
