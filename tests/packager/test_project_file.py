"""edgepack.toml: what the command line leaves out."""

import re

import pytest

from agent.contract.errors import ContractError, UsageError
from packager.project_file import fill, load_project, starter

_FILE = """
model = "models/net.onnx"
target = "raspberry-pi-5"
calibration = "data/cal.npz"
shape = ["image=1x1x8x8"]
eval = "data/eval.npz"
metric = "top1"

[targets.raspberry-pi-5]
recipe = "int8"

[targets.linux-x86-64]
recipe = "fp16"
calibration = "random"
shape = ["image=2x1x8x8"]
runtime = "onnxruntime"
"""
_EMPTY = {"model": None, "target": None, "runtime": None, "recipe": None, "calibration": None, "shapes": ()}


def options(**given):
    return {**_EMPTY, **given}


@pytest.fixture
def project(place):
    (place / "edgepack.toml").write_text(_FILE)
    return place


def test_all_is_taken_from_the_file(project):
    filled = fill(options())
    assert filled["target"] == "raspberry-pi-5"
    assert filled["model"] == "models/net.onnx"
    assert filled["calibration"] == "data/cal.npz"
    assert filled["recipe"] == "int8"
    assert filled["shapes"] == ("image=1x1x8x8",)


def test_a_targets_own_settings_come_first(project):
    filled = fill(options(target="linux-x86-64"))
    assert (filled["recipe"], filled["calibration"], filled["runtime"]) == ("fp16", "random", "onnxruntime")
    assert filled["shapes"] == ("image=2x1x8x8",)


def test_the_command_line_comes_before_the_file(project):
    filled = fill(options(target="jetson-orin", recipe="fp32", calibration="other.npz", shapes=("image=9x1x8x8",)))
    assert (filled["recipe"], filled["calibration"]) == ("fp32", "other.npz")
    assert filled["shapes"] == ("image=9x1x8x8",)


def test_paths_are_those_of_the_files_folder(project):
    assert fill(options(), project)["model"] == str(project / "models/net.onnx")
    assert fill(options(), project)["calibration"] == str(project / "data/cal.npz")


def test_a_named_model_does_not_take_the_files_settings(project):
    assert fill(options(model="a.onnx", target="linux-x86-64"))["calibration"] is None


def test_factory_beside_the_file(place):
    (place / "net.py").write_text("")
    (place / "edgepack.toml").write_text('model = "net.py:make"\ntarget = "linux-x86-64"\n')
    assert fill(options(), place)["model"] == f"{place}/net.py:make"


@pytest.mark.parametrize(("given", "code"), [({}, "no-model"), ({"model": "m.onnx"}, "no-target")])
def test_what_is_missing_is_told(place, given, code):
    with pytest.raises(UsageError) as caught:
        fill(options(**given))
    assert caught.value.code == code


def test_file_without_a_target_needs_one(place):
    (place / "edgepack.toml").write_text('model = "m.onnx"\n[targets.jetson-orin]\n')
    with pytest.raises(UsageError, match="no target was given") as caught:
        fill(options())
    assert "jetson-orin" in caught.value.expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('modle = "m.onnx"', "did you mean 'model'"),
        ('model = "m.onnx"\nshape = "x=1"', r"\$\.shape"),
        ('model = "m.onnx"\n[targets.a]\nrecpe = "int8"', r"\$\.targets\.a: unknown key 'recpe'"),
        ("model = m.onnx", "not TOML"),
        ('target = "linux-x86-64"', "missing key 'model'"),
        ('model = "m.onnx"\nschema = "edgepack.project/2"', "newer version"),
    ],
)
def test_file_that_is_wrong_is_told_where(place, text, told):
    (place / "edgepack.toml").write_text(text)
    with pytest.raises(ContractError) as caught:
        load_project(place / "edgepack.toml")
    assert re.search(told, str(caught.value))
    assert str(place) in str(caught.value)


def test_starter_is_a_project_file(place):
    text = starter('odd "name".onnx', [("image", "nx1x8x8")], "raspberry-pi-5")
    (place / "edgepack.toml").write_text(text)
    project = load_project(place / "edgepack.toml")
    assert (project.model, project.target) == ('odd "name".onnx', "raspberry-pi-5")
    # What stands in comments is right as well.
    lines = [line.removeprefix("# ") for line in text.splitlines() if re.match(r"(# )?(\w+ = |\[)", line)]
    (place / "edgepack.toml").write_text("\n".join(lines))
    project = load_project(place / "edgepack.toml")
    assert project.shape == ("image=nx1x8x8",)
    assert project.targets["raspberry-pi-5"].recipe == "int8"
