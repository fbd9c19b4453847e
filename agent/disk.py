"""The disk's refusals, as errors that say what to do."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Iterator

from agent.contract.archive import sync_folder
from agent.contract.errors import DeviceError


def no_space(where: Path, needed: int, free: int) -> DeviceError:
    """The disk is too full."""
    return DeviceError(
        "no space on the device: %.1f MB needed, %.1f MB free" % (needed / 1e6, free / 1e6),
        where=str(where),
        fix="free space there, or remove bundles: edgepack devices prune DEVICE --keep N, edgepack devices remove-bundle",
        code="no-space",
    )


def write_file(path: Path, data: bytes) -> None:
    """Writes a file and waits until it is on the disk."""
    with open(str(path), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_by(part: Path, path: Path, data: bytes) -> None:
    """Writes `part` and moves it into the place of `path`; nothing of it is left where that fails."""
    try:
        write_file(part, data)
        os.replace(str(part), str(path))
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()


def write_atomic(path: Path, data: bytes) -> None:
    """Replaces a file: whatever is cut, the old one or the new one is there, whole. Raises DeviceError."""
    with disk_errors(path):
        write_by(path.with_name(path.name + ".part"), path, data)
        sync_folder(path.parent)


@contextlib.contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Turns the disk's refusals into DeviceErrors that say what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DeviceError(
                "no space left on the device", where=str(where), fix="free space there", code="no-space"
            ) from error
        if error.errno == errno.EROFS:
            raise DeviceError(
                "the device's file system is read-only",
                where=str(where),
                fix="remount it writable, or give edgepack another folder: edgepack devices add NAME ADDRESS --root PATH",
                code="read-only",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise DeviceError(
                "no permission to write on the device",
                where=str(where),
                fix="make the folder this user's, or give another: edgepack devices add NAME ADDRESS --root PATH",
                code="permission",
            ) from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ELOOP):
            raise DeviceError(
                "edgepack's folder on the device cannot be one: %s" % error,
                where=str(where),
                fix="move what is in the way, or give another folder: edgepack devices add NAME ADDRESS --root PATH",
                code="bad-root",
            ) from error
        raise
