"""Wheels for another machine: resolved and downloaded by the host's pip for the device's architecture, Python and glibc."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from agent.contract.errors import DeviceError

# PEP 600: a glibc 2.N system takes wheels of every manylinux_2_M with M <= N. PEP 599: manylinux2014 is 2.17.
_OLDEST_MINOR = 5
_ALIASES = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
_NO_NUMPY = {
    "armv7l": "PyPI has no numpy for 32-bit ARM: on the device, sudo apt-get install python3-numpy, and a runtime "
    "that has armv7 packages (tflite-runtime); or a 64-bit system",
    "armv6l": "PyPI has no numpy for 32-bit ARM: use a 64-bit board or system",
}


def platforms(machine: str, glibc: str) -> list[str]:
    """The platform tags that a system takes, newest first. Raises DeviceError where PyPI has nothing for it."""
    if machine in _NO_NUMPY:
        raise DeviceError(f"there are no wheels for {machine}", fix=_NO_NUMPY[machine], code="no-wheels")
    match = re.fullmatch(r"2\.(\d+)", glibc)
    if match is None:
        raise DeviceError(
            f"the device's C library is {glibc or 'not glibc'}",
            expected="glibc 2.x: the runtimes' wheels are built for it",
            fix="install numpy and a runtime on the device from its own packages",
            code="no-wheels",
        )
    tags = []
    for minor in range(int(match[1]), _OLDEST_MINOR - 1, -1):
        tags.append(f"manylinux_2_{minor}_{machine}")
        if minor in _ALIASES:
            tags.append(f"{_ALIASES[minor]}_{machine}")
    return tags


def download(folder: Path, packages: Sequence[str], machine: str, python: str, glibc: str) -> list[Path]:
    """The newest wheels of `packages`, and of all they need, that run there; older systems get older versions.

    `python` is "3.11" or longer. Raises DeviceError when there are none, or pip cannot reach its index.
    """
    short = "".join(python.split(".")[:2])
    tags = platforms(machine, glibc)
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "-d", str(folder)]
    command += ["--only-binary=:all:", "--python-version", short, "--implementation", "cp"]
    command += [word for tag in tags for word in ("--platform", tag)]
    command += ["--abi", f"cp{short}", "--abi", "abi3", "--abi", "none", *packages]
    # A user who makes warnings errors means their own code's, not pip's.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=environment
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        told = [line for line in lines if line.startswith("ERROR: ") and line != "ERROR: Exception:"] or lines[-1:]
        raise DeviceError(
            f"no wheels of {', '.join(packages)} for Python {python}, {machine}, glibc {glibc}: {''.join(told[-1:])}",
            fix=f"check that `{sys.executable} -m pip download` works here; or install them on the device by hand",
            code="no-wheels",
        )
    return sorted(folder.glob("*.whl"))
