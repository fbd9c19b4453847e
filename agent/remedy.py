"""The exact command that installs packages for this interpreter."""

from __future__ import annotations

import os
import shlex
import sys
import sysconfig
from typing import List

VENV = "~/edgepack-env"


def install(packages: List[str]) -> str:
    """Installs with pip where it may; else (PEP 668, or no pip) in a virtual environment."""
    wanted = " ".join(packages)
    if sys.prefix != sys.base_prefix or not (_is_managed() or not _has_pip()):
        return "on the device: %s -m pip install %s" % (shlex.quote(sys.executable), wanted)
    return (
        "on the device: %s -m venv %s && %s/bin/pip install %s; then here: edgepack devices add NAME ADDRESS --python "
        "%s/bin/python" % (shlex.quote(sys.executable), VENV, VENV, wanted, VENV)
    )


def _is_managed() -> bool:
    return os.path.exists(os.path.join(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED"))


def _has_pip() -> bool:
    from importlib import util

    return util.find_spec("pip") is not None
