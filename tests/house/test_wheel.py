"""What users install: plain names at the top, no others, and nobody else's."""

import importlib.util
import subprocess
import sys
import zipfile
from importlib import metadata

import pytest

from tests.house.repository import ROOT

TOP = {"packager", "targets", "profiles", "agent"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed: pip install 'edgepack[dev]'")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "-w", str(folder), str(ROOT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_top_level_is_exactly_ours(wheel):
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    info = {top for top in tops if top.endswith(".dist-info")}
    assert len(info) == 1
    assert tops - info == TOP


def test_brings_profiles_demo_data_and_type_markers(wheel):
    names = set(wheel.namelist())
    profiles = {path.relative_to(ROOT).as_posix() for path in (ROOT / "profiles").glob("*.toml")}
    data = {f"packager/demo_data/{name}" for name in ("fashion-cnn.onnx", "calibration.npz", "eval.npz")}
    assert profiles
    assert profiles | data | {"packager/py.typed", "targets/py.typed", "agent/py.typed"} <= names


def test_brings_no_tests_and_no_caches(wheel):
    assert not [name for name in wheel.namelist() if "tests/" in name or "__pycache__" in name]


@pytest.mark.parametrize("name", sorted(TOP))
def test_no_other_installed_distribution_provides_the_name(name):
    owners = set(metadata.packages_distributions().get(name, ()))
    assert owners <= {"edgepack"}
