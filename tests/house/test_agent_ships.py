"""The agent runs on Python 3.8 with nothing installed, and travels as one small file that is the same wherever it is built."""

import ast
import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

from packager.device.agent_zip import agent_name, agent_zip, pack
from tests.house.repository import ROOT, short, source_files

AGENT = source_files("agent")
_BUILD = "import sys; from packager.device.agent_zip import pack; sys.stdout.buffer.write(pack())"


@pytest.mark.parametrize("path", AGENT, ids=short)
def test_parses_as_python_3_8(path):
    ast.parse(path.read_text(encoding="utf-8"), filename=str(path), feature_version=(3, 8))


@pytest.mark.parametrize("path", AGENT, ids=short)
def test_imports_only_the_standard_library_and_itself_at_the_top(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names.add((node.module or "").partition(".")[0])
    assert names <= {*sys.stdlib_module_names, "agent"}


@pytest.mark.parametrize("path", AGENT, ids=short)
def test_annotations_are_not_evaluated_with_newer_syntax(path):
    # `X | Y` and `list[str]` fail on 3.8 when the codec evaluates a dataclass's types.
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.AnnAssign):
            for part in ast.walk(node.annotation):
                assert not isinstance(part, ast.BinOp), f"line {node.lineno}"
                if isinstance(part, ast.Subscript) and isinstance(part.value, ast.Name):
                    assert part.value.id not in {"list", "dict", "tuple", "set", "type"}, f"line {node.lineno}"


def test_two_builds_are_identical():
    assert pack() == pack() == agent_zip()


def test_another_folder_other_times_and_other_permissions_change_nothing(tmp_path):
    # Other tests write their bytecode there at this moment: a temporary name of it is gone before it could be copied.
    for name in ("agent", "packager"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for index, path in enumerate(sorted((tmp_path / "agent").rglob("*.py"), reverse=True)):
        os.utime(path, (10**9 + index * 1000, 10**9 + index * 1000))
        path.chmod(0o600)
    (tmp_path / "agent" / "leftover.txt").write_text("not code", encoding="utf-8")
    environment = {"PATH": os.environ["PATH"], "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [sys.executable, "-c", _BUILD], cwd=tmp_path, env=environment, capture_output=True, check=True, timeout=60
    )
    assert done.stdout == agent_zip()


def test_is_smaller_than_100_kb():
    assert len(agent_zip()) < 100_000


def test_holds_every_module_of_the_agent_and_nothing_else(tmp_path):
    (tmp_path / agent_name()).write_bytes(agent_zip())
    with zipfile.ZipFile(tmp_path / agent_name()) as archive:
        names = archive.namelist()
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        with tarfile.open(fileobj=io.BytesIO(archive.read("agent/modules.tar"))) as modules:
            held = {f"agent/{entry.name}" for entry in modules if entry.mtime == 0 and entry.isreg()}
    assert names == ["__main__.py", "agent/__init__.py", "agent/packed.py", "agent/modules.tar"]
    assert sorted({*held, "agent/packed.py"}) == sorted(short(path) for path in AGENT)


def test_every_module_is_imported_and_listed_from_the_zip_and_a_traceback_shows_its_line(tmp_path):
    (tmp_path / "agent.pyz").write_bytes(agent_zip())
    code = """
import importlib, pkgutil, sys, traceback
sys.path.insert(0, sys.argv[1])
import agent
names = [found.name for found in pkgutil.walk_packages(agent.__path__, "agent.")]
for name in names:
    if name != "agent.__main__":
        assert importlib.import_module(name).__file__.startswith(sys.argv[1]), name
print(len(names))
from agent.contract import codec
try:
    codec.loads(dict, b"{")
except Exception:
    print(traceback.format_exc())
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(tmp_path / "agent.pyz")],
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    assert int(done.stdout.split()[0]) == len(AGENT) - 2  # agent itself, and what imports the rest
    assert f'{tmp_path / "agent.pyz"}/agent/contract/codec.py", line' in done.stdout
    assert "raise ContractError" in done.stdout


def test_its_name_changes_with_its_bytes():
    assert agent_name().startswith("agent-")
    assert agent_name().endswith(".pyz")
    assert len(agent_name()) == len("agent-") + 12 + len(".pyz")
