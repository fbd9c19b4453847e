"""Habits that no other tool checks: libraries neither print nor exit, files stay readable, nothing names one machine."""

import ast
import re

import pytest

from tests.house.repository import PACKAGES, ROOT, short, source_files, tracked_files

LIBRARY = [
    path
    for path in source_files(*PACKAGES)
    if not path.is_relative_to(ROOT / "packager/cli") and path.name != "__main__.py"
]
MOST_LINES = 400
_ENDS = {"print", "exit", "quit", "input", "breakpoint"}
_TEXT = {".py", ".md", ".toml", ".txt", ".cfg", ".sh", ".yml", ".yaml", ".json", ".c", ".h", ".html", ""}
# Homes and work folders of whoever wrote the line, as they would stand in a path.
_MACHINE = re.compile(r"(?<![\w.~$}{-])/(?:work|root|Users)(?:/|\b)(?![:\w])")


def spoken(path):
    """The places where the file prints or ends the process."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in _ENDS or called in {"sys.exit", "sys.stdout.write", "sys.stderr.write"}:
                found.append(f"line {node.lineno}: {called}")
        if isinstance(node, ast.Raise) and node.exc is not None and "SystemExit" in ast.unparse(node.exc):
            found.append(f"line {node.lineno}: SystemExit")
    return found


@pytest.mark.parametrize("path", LIBRARY, ids=short)
def test_library_neither_prints_nor_exits(path):
    assert spoken(path) == []


def test_what_prints_is_found(tmp_path):
    (tmp_path / "bad.py").write_text("import sys\nprint(1)\ndef f():\n    raise SystemExit(2)\nsys.exit(1)\n")
    assert len(spoken(tmp_path / "bad.py")) == 3


def test_no_file_is_longer_than_one_can_read():
    files = source_files(*PACKAGES, "profiles", "tests", "benchmarks", "scripts")
    lines = {short(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


def test_no_file_names_a_machine():
    found = []
    for path in tracked_files():
        if path.suffix not in _TEXT or not path.is_file():
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="ignore").splitlines(), 1):
            if _MACHINE.search(line):
                found.append(f"{short(path)}:{number}: {line.strip()[:120]}")
    assert found == []


@pytest.mark.parametrize("path", ["/" + "work/main/x", "see /" + "root/.cache", "(/" + "Users/alice/m.onnx)"])
def test_a_machine_s_path_is_seen(path):
    assert _MACHINE.search(path)


@pytest.mark.parametrize("path", ["https://host/root/x", "~/work/x", "tests/work/y", "/sys/class", "/home/pi/model"])
def test_other_paths_are_left_alone(path):
    assert not _MACHINE.search(path)
