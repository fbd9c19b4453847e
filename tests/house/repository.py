"""The repository as data: where it lies, its modules, its text files, the libraries that are heavy."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("packager", "targets", "agent")


def settings():
    """pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def heavy():
    """The libraries that may be imported inside functions only: the list is ruff's, kept in pyproject.toml."""
    return set(settings()["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-module-level-imports"])


def source_files(*folders):
    """The Python files below these folders of the repository, sorted."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def modules(*packages):
    """The names of all modules of these packages; `__main__` is a door, not a module."""
    names = []
    for path in source_files(*packages):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] != "__main__":
            names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


def tracked_files():
    """Every file that git knows here."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [ROOT / name for name in listed.decode().split("\0") if name]


def python(*arguments, **options):
    """Runs this interpreter in the repository; a failure shows what it said."""
    options = {"cwd": ROOT, "capture_output": True, "text": True, "timeout": 120, **options}
    done = subprocess.run([sys.executable, *arguments], check=False, **options)
    assert done.returncode == 0, done.stderr
    return done


def short(path):
    """The path as one reads it in a failure."""
    return str(path.relative_to(ROOT))
