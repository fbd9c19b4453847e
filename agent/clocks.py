"""A Jetson's clocks, held at their highest while something is measured, and given back afterwards. Only when asked for.

Source: NVIDIA's Jetson Linux Developer Guide, "Maximizing Jetson Performance": `jetson_clocks --store FILE` keeps the
present settings, `jetson_clocks` raises them, `jetson_clocks --restore FILE` gives them back. It needs root. Not run on
hardware by this project: the tests put a script in its place.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Iterator, List

from agent.contract.errors import DeviceError

TOOL = "jetson_clocks"
_PLACES = "/usr/bin:/usr/sbin:/usr/local/bin"
_SECONDS = 60.0
STORED = "clocks.stored"


@contextlib.contextmanager
def locked(root: str, *, wanted: bool = True) -> Iterator[None]:
    """Clocks at their highest inside the block; the settings from before afterwards, also when the block fails.

    The settings are stored in edgepack's folder `root` first: an agent that was killed in the middle leaves them there,
    and the next block gives back those, not the raised ones. With `wanted` false nothing is touched.
    Raises DeviceError when this is no Jetson, sudo asks for a password, or the tool fails.
    """
    if not wanted:
        yield
        return
    tool = _tool()
    stored = Path(root) / STORED
    if stored.exists():
        _call([tool, "--restore", str(stored)])
    else:
        _call([tool, "--store", str(stored)])
    try:
        _call([tool])
        yield
    finally:
        _call([tool, "--restore", str(stored)])
        _forget(stored)


def left_locked(root: str) -> bool:
    """Whether a run that was killed left the clocks raised."""
    return (Path(root) / STORED).exists()


def _tool() -> str:
    found = shutil.which(TOOL, path=os.pathsep.join([os.environ.get("PATH", ""), _PLACES]))
    if found is None:
        raise DeviceError(
            "the clocks cannot be locked: %s is not on the device" % TOOL,
            expected="a Jetson with JetPack",
            fix="leave out --lock-clocks; on other boards: sudo cpupower frequency-set -g performance",
            code="no-jetson-clocks",
        )
    return found


def _call(argv: List[str]) -> None:
    if os.geteuid():
        argv = ["sudo", "-n", *argv]
    try:
        done = subprocess.run(argv, capture_output=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeviceError("the clocks could not be set: %s" % error, code="clocks") from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()[-500:]
        raise DeviceError(
            "the clocks could not be set: %s ended with status %d" % (" ".join(argv), done.returncode),
            where=said,
            fix="connect as root, or allow this user `sudo %s` without a password" % TOOL,
            code="clocks",
        )


def _forget(stored: Path) -> None:
    # sudo made it root's, but the folder is ours.
    with contextlib.suppress(FileNotFoundError):
        stored.unlink()
