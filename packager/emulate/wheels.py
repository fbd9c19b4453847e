"""The runtimes' wheels for the device, fetched by the host's pip and unpacked without running anything of them."""

from __future__ import annotations

import compileall
import py_compile
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from agent.contract.errors import DeviceError, IntegrityError
from packager.emulate.debian import lock, locked, request_key
from packager.emulate.tools import Progress, quiet, run

if TYPE_CHECKING:
    from collections.abc import Sequence

# The oldest glibc first: pip takes a wheel that fits any of these.
_PLATFORMS = ("manylinux2014_aarch64", "manylinux_2_17_aarch64", "manylinux_2_27_aarch64", "manylinux_2_28_aarch64")


def fetch_wheels(folder: Path, requirements: Sequence[str], python: str, progress: Progress = quiet) -> list[Path]:
    """The wheels of `requirements` and all they depend on, for aarch64 and Python `python` ("3.11").

    Raises DeviceError when pip is missing or finds no wheel.
    """
    if not requirements:
        return []
    key = request_key("wheels", python, list(requirements), list(_PLATFORMS))
    files = locked(folder, key)
    if files:
        return files
    folder.mkdir(parents=True, exist_ok=True)
    short = python.replace(".", "")
    with tempfile.TemporaryDirectory(dir=folder, prefix="pip-") as scratch:
        progress("fetching wheels: {}".format(", ".join(requirements)))
        command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "-d", scratch]
        command += ["--only-binary=:all:", "--python-version", short, "--implementation", "cp"]
        command += [argument for platform in _PLATFORMS for argument in ("--platform", platform)]
        command += ["--abi", "cp" + short, "--abi", "abi3", "--abi", "none"]
        try:
            run([*command, *requirements], what="fetching wheels")
        except DeviceError as error:
            error.fix = error.fix or f"see whether `{sys.executable} -m pip download` works on this host"
            raise
        return lock(folder, key, sorted(Path(scratch).glob("*.whl")))


def unpack_wheels(wheels: Sequence[Path], site: Path) -> None:
    """Unpacks wheels into a site folder. Raises IntegrityError for one that is not whole or leaves the folder."""
    site.mkdir(parents=True, exist_ok=True)
    for wheel in wheels:
        try:
            with zipfile.ZipFile(wheel) as archive:
                for name in archive.namelist():
                    if name.startswith("/") or ".." in name.split("/"):
                        raise IntegrityError(f"{wheel.name} holds a file {name!r}", where=str(wheel))
                archive.extractall(site)
        except zipfile.BadZipFile as error:
            raise IntegrityError(
                f"the wheel {wheel.name} is not whole: {error}",
                where=str(wheel),
                fix="delete it: it is then fetched again",
            ) from error


def compile_modules(root: Path, folders: Sequence[Path], python: str) -> bool:
    """Compiles Python files of a root file system for the device; False when this host's Python is another version.

    Without it the machine compiles every import anew, as its user may not write to the system's folders: seconds each.
    """
    if python != f"{sys.version_info.major}.{sys.version_info.minor}":
        return False
    for folder in folders:
        # A file that does not compile (a test's broken input, a Python 2 relic) is no fault of ours: it stays source.
        compileall.compile_dir(
            folder,
            quiet=2,
            stripdir=str(root),
            prependdir="/",
            workers=0,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
    return True
