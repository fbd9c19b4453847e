"""The programs that emulated machines need on the host, and how they are run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from agent.contract.errors import DeviceError

if TYPE_CHECKING:
    from pathlib import Path

Progress = Callable[[str], None]

# program -> the Debian package that holds it
_BUILD = {"apt-get": "apt", "dpkg-deb": "dpkg", "tar": "tar", "mke2fs": "e2fsprogs", "debugfs": "e2fsprogs"}
_RUN = {"qemu-system-aarch64": "qemu-system-arm", "ssh": "openssh-client", "ssh-keygen": "openssh-client"}
_SYSTEM_FOLDERS = ("/usr/sbin", "/sbin")  # not on an ordinary user's PATH, and mke2fs lives there
_TAIL = 2000


def quiet(_: str) -> None:
    """Progress that goes nowhere."""


def find_program(name: str) -> str | None:
    """The program's path, looked for on PATH and in the system's folders, or None."""
    path = os.pathsep.join((os.environ.get("PATH", ""), *_SYSTEM_FOLDERS))
    return shutil.which(name, path=path)


def missing_packages(*, building: bool = True) -> list[str]:
    """The Debian packages that must still be installed to run machines and, with `building`, to build their images."""
    wanted = {**_RUN, **(_BUILD if building else {})}
    return sorted({package for program, package in wanted.items() if find_program(program) is None})


def install_packages(packages: Sequence[str], progress: Progress = quiet) -> None:
    """Installs Debian packages where that is permitted. Raises DeviceError with the one command otherwise."""
    if not packages:
        return
    if os.geteuid() != 0 or find_program("apt-get") is None:
        raise missing_error(packages)
    progress("installing {}".format(" ".join(packages)))
    quietly = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "-q", "-y", "--no-install-recommends", "install", *packages]
    try:
        run(command, environment=quietly, what="installing packages")
    except DeviceError:
        # Most likely the package lists are old: fetch them, and let a second failure speak.
        run(["apt-get", "-q", "update"], environment=quietly, what="updating the package lists")
        run(command, environment=quietly, what="installing packages")


def need_packages(*, building: bool) -> None:
    """Raises DeviceError when a program is missing; its fix is the one command that brings all of them."""
    if not sys.platform.startswith("linux"):
        raise DeviceError(
            "emulated machines need a Linux host",
            where=sys.platform,
            expected="Linux with Debian's apt and qemu",
            code="no-emulator",
        )
    missing = missing_packages(building=building)
    if missing:
        raise missing_error(missing)


def missing_error(packages: Sequence[str]) -> DeviceError:
    """The error for programs that are not there."""
    names = " ".join(packages)
    return DeviceError(
        f"an emulated machine needs Debian packages that are not installed: {names}",
        where="this host",
        fix=f"sudo apt-get install --no-install-recommends {names}",
        code="no-emulator",
    )


def run(
    argv: Sequence[str],
    *,
    what: str,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: bytes = b"",
    deadline: float = 900.0,
) -> str:
    """The program's standard output. `what` names the work in the DeviceError of a program that fails or is missing."""
    program = find_program(argv[0]) or argv[0]
    try:
        done = subprocess.run(
            [program, *argv[1:]],
            input=stdin,
            capture_output=True,
            env=environment,
            cwd=cwd,
            timeout=deadline,
            check=False,
        )
    except FileNotFoundError as error:
        raise DeviceError(f"{what}: there is no program {argv[0]!r}", code="no-program") from error
    except subprocess.TimeoutExpired as error:
        raise DeviceError(f"{what}: {argv[0]} did not end within {deadline:g} s", code="too-slow") from error
    if done.returncode:
        said = (done.stderr + done.stdout).decode("utf-8", "replace").strip()
        raise DeviceError(
            f"{what} failed: {argv[0]} ended with status {done.returncode}",
            where=" ".join(argv)[:500],
            expected=f"status 0; it said:\n{said[-_TAIL:]}",
            code="tool-failed",
        )
    return done.stdout.decode("utf-8", "replace")
