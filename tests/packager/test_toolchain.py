"""Converters in environments of their own: made once, listed, removed; what was interrupted does not count."""

import subprocess
import zipfile

import pytest
from click.testing import CliRunner

from agent.contract.errors import ConvertError, UsageError
from packager import toolchain
from packager.cli.toolchain import command
from packager.toolchain import Tool, find_python, find_tool, folder_of, install, listed, remove


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A tool whose only requirement is a wheel on this disk; the cache is the test's own."""
    wheel = tmp_path / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny.py", "answer = 42\n")
        archive.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("tiny-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tool = Tool("tiny", "Nothing to nothing", (str(wheel),), (3, 8), (3, 15))
    monkeypatch.setattr(toolchain, "TOOLS", {"tiny": tool})
    return tool


def test_installed_once_listed_and_removed_from_the_command_line(tiny):
    runner = CliRunner()
    assert "not installed" in runner.invoke(command, ["list"]).output
    done = runner.invoke(command, ["install", "tiny"])
    assert done.exit_code == 0
    assert str(folder_of("tiny")) in done.stdout
    (found,) = listed()
    assert found.size_bytes > 10_000
    assert '"installed": true' in runner.invoke(command, ["list", "--json"]).stdout
    said = []
    assert install("tiny", said.append).python == found.python
    assert said == []
    assert "removed" in runner.invoke(command, ["remove", "tiny"]).output
    assert not folder_of("tiny").exists()
    assert "was not installed" in runner.invoke(command, ["remove", "tiny"]).output


def test_interrupted_installation_does_not_count(tiny):
    folder_of("tiny").joinpath("bin").mkdir(parents=True)
    assert [one.python for one in listed()] == [""]


def test_other_requirements_than_those_installed_are_installed_anew(tiny, monkeypatch):
    folder = folder_of("tiny")
    folder.mkdir(parents=True)
    (folder / "edgepack-toolchain.json").write_text('{"requirements": ["tiny==0.9"]}')
    assert [one.python for one in listed()] == [""]


@pytest.mark.device
def test_requirement_that_pip_does_not_find(tiny, monkeypatch):
    broken = Tool("tiny", "", ("/nowhere/tiny-1.0-py3-none-any.whl",), (3, 8), (3, 15))
    monkeypatch.setattr(toolchain, "TOOLS", {"tiny": broken})
    with pytest.raises(ConvertError) as error:
        install("tiny")
    assert error.value.code == "toolchain"
    assert "/nowhere" in error.value.where
    assert [one.python for one in listed()] == [""]


def test_no_interpreter_that_fits(tiny, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("PYENV_ROOT", "/nowhere")
    with pytest.raises(ConvertError) as error:
        find_python(Tool("far", "", (), (3, 97), (3, 99)))
    assert error.value.code == "no-python"
    assert "3.97 to 3.98" in error.value.what


def test_unknown_tool(tiny):
    with pytest.raises(UsageError, match="tiny"):
        find_tool("tinny")


@pytest.mark.device
@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("name", "module"), [("onnx2tf", "onnx2tf"), ("tf2onnx", "tf2onnx")])
def test_real_tool_is_installed_runs_and_is_removed(name, module, tmp_path, monkeypatch):
    """Fetches some hundred megabytes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = install(name)
    done = subprocess.run([made.python, "-I", "-c", f"import {module}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert next(one for one in listed() if one.tool.name == name).size_bytes > 10**8
    assert remove(name)
    assert not folder_of(name).exists()
