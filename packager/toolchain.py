"""Converters whose dependencies exclude ours: each in an environment and an interpreter of its own, made once and kept."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from agent.contract.errors import ConvertError, unknown_name

_MARK = "edgepack-toolchain.json"
_TAIL = 1500


@dataclasses.dataclass(frozen=True)
class Tool:
    """`requirements` are pip's; `python` is the least version it works with, `below` the first that it does not."""

    name: str
    what: str
    requirements: tuple[str, ...]
    python: tuple[int, int]
    below: tuple[int, int]


_TENSORFLOW = ("tensorflow-cpu==2.21.0", "tf-keras==2.21.0")
TOOLS = {
    tool.name: tool
    for tool in (
        Tool("onnx2tf", "ONNX to TFLite", ("onnx2tf==2.6.9",), (3, 12), (3, 14)),
        Tool("keras", "Keras to TFLite", _TENSORFLOW, (3, 10), (3, 14)),
        Tool("tf2onnx", "Keras to ONNX", (*_TENSORFLOW, "tf2onnx==1.17.0"), (3, 10), (3, 14)),
    )
}


@dataclasses.dataclass(frozen=True)
class Installed:
    """A tool's place: `python` is empty where it is not installed."""

    tool: Tool
    folder: Path
    python: str = ""
    size_bytes: int = 0


def folder_of(name: str) -> Path:
    """Where a tool's environment lies, under the user's cache folder."""
    import platformdirs

    return platformdirs.user_cache_path("edgepack") / "toolchain" / name


def listed() -> list[Installed]:
    """Every tool, installed or not."""
    found = []
    for tool in TOOLS.values():
        folder = folder_of(tool.name)
        python = _ready(tool, folder)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if python else 0
        found.append(Installed(tool, folder, python, size))
    return found


def install(name: str, progress: Callable[[str], None] = lambda _: None, python: str = "") -> Installed:
    """Makes the environment, if it is not there. `python` names the interpreter to make it with.

    An interrupted installation does not count as one. Raises UsageError for an unknown tool, ConvertError when no
    interpreter fits or pip fails.
    """
    tool = find_tool(name)
    folder = folder_of(name)
    with _locked(folder):
        ready = _ready(tool, folder)
        if not ready:
            base = python or find_python(tool)
            progress(f"installing {tool.name} in an environment of its own (once)")
            shutil.rmtree(folder, ignore_errors=True)
            _run([base, "-m", "venv", str(folder)], tool)
            ready = str(folder / "bin" / "python")
            _run([ready, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *tool.requirements], tool)
            (folder / _MARK).write_text(json.dumps({"requirements": tool.requirements}), encoding="utf-8")
    return Installed(tool, folder, ready)


def ready(name: str) -> str:
    """The tool's interpreter; empty where it is not installed. Raises UsageError for an unknown tool."""
    return _ready(find_tool(name), folder_of(name))


def remove(name: str) -> bool:
    """Deletes the environment; whether there was one."""
    folder = folder_of(find_tool(name).name)
    with _locked(folder):
        there = folder.exists()
        shutil.rmtree(folder, ignore_errors=True)
    return there


def find_tool(name: str) -> Tool:
    """The tool of this name. Raises UsageError that lists them."""
    if name not in TOOLS:
        raise unknown_name("tool", name, TOOLS, fix="edgepack toolchain list")
    return TOOLS[name]


def find_python(tool: Tool) -> str:
    """An interpreter that the tool works with: ours, one on PATH, one of pyenv's. Raises ConvertError."""
    names = [f"python3.{minor}" for minor in range(tool.python[1], tool.below[1])]
    candidates = [sys.executable] if tool.python <= sys.version_info[:2] < tool.below else []
    candidates += [path for path in map(shutil.which, names) if path]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates += [str(path) for name in names for path in sorted(pyenv.glob(f"*/bin/{name}"))]
    for candidate in candidates:
        if _version(candidate, tool):
            return candidate
    least, most = (".".join(map(str, version)) for version in (tool.python, (3, tool.below[1] - 1)))
    raise ConvertError(
        f"{tool.name} needs Python {least} to {most}, and none was found",
        expected=f"an interpreter on PATH: {', '.join(names)}",
        fix=f"install one, or name it: edgepack toolchain install {tool.name} --python PATH",
        code="no-python",
    )


def _version(python: str, tool: Tool) -> bool:
    code = "import sys, venv, ensurepip; print(*sys.version_info[:2])"
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        return False  # a shim without its interpreter, or one without venv
    major, minor = map(int, done.stdout.split())
    return tool.python <= (major, minor) < tool.below


def _ready(tool: Tool, folder: Path) -> str:
    try:
        mark = json.loads((folder / _MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(folder / "bin" / "python") if mark.get("requirements") == list(tool.requirements) else ""


def _run(argv: list[str], tool: Tool) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConvertError(
            f"{tool.name} could not be installed",
            where=(done.stderr or done.stdout).strip()[-_TAIL:],
            expected="a network or a package cache that pip reaches",
            fix=f"edgepack toolchain install {tool.name}",
            code="toolchain",
        )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(folder.name + ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
