"""Writes bundles: the same inputs give the same bytes, and nothing half-written is ever seen under the bundle's name."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.errors import UsageError
from agent.contract.manifest import MANIFEST_NAME, FileEntry, Golden, GoldenTensor, Manifest, Tolerance, manifest_digest

if TYPE_CHECKING:
    import numpy as np

    from packager.bundle.golden import GoldenVectors

_EPOCH = (1980, 1, 1, 0, 0, 0)
_CHUNK = 1 << 20
Content = bytes | Path


def golden_files(golden: GoldenVectors, tolerance: Tolerance) -> tuple[Golden, dict[str, Content]]:
    """The manifest's entry and the files: one .npy per tensor, named by its place, since tensor names may hold anything."""
    files: dict[str, Content] = {}

    def add(kind: str, arrays: Mapping[str, np.ndarray[Any, Any]]) -> list[GoldenTensor]:
        entries = []
        for index, (name, array) in enumerate(arrays.items()):
            file = f"golden/{kind}_{index}.npy"
            files[file] = npy_bytes(array)
            entries.append(GoldenTensor(name=name, file=file))
        return entries

    record = Golden(
        samples=golden.samples,
        inputs=add("input", golden.inputs),
        outputs=add("output", golden.outputs),
        tolerance=tolerance,
        made_from=golden.made_from,
    )
    return record, files


def npy_bytes(array: np.ndarray[Any, Any]) -> bytes:
    """The array as a .npy file."""
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def check_writable(target: Path) -> None:
    """Raises UsageError when a file could not be written there: better before the work than after it."""
    folder = next(parent for parent in target.absolute().parents if parent.exists())
    if target.is_dir():
        what = "that is a folder"
    elif not folder.is_dir():
        what = f"{folder} is no folder"
    elif not os.access(folder, os.W_OK | os.X_OK):
        what = f"nothing may be written in {folder}"
    else:
        return
    raise UsageError(
        what, where=str(target), expected="a file in a folder that is yours", fix="choose another -o", code="output"
    )


def write_bundle(target: Path, manifest: Manifest, contents: Mapping[str, Content]) -> tuple[Manifest, str]:
    """Writes the bundle and returns the manifest with its files filled in, and the digest.

    `contents` maps names inside the bundle to bytes or to files on disk. Raises UsageError when `target` cannot be written.
    """
    entries = {name: _entry(contents[name]) for name in sorted(contents)}
    whole = dataclasses.replace(manifest, files=entries)
    raw = whole.to_bytes()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    except OSError as error:
        raise UsageError(
            f"the bundle cannot be written: {error}", where=str(target), fix="choose another -o"
        ) from error
    try:
        with os.fdopen(handle, "wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                _add(archive, MANIFEST_NAME, raw)
                for name in entries:
                    _add(archive, name, contents[name])
            file.flush()
            os.fsync(file.fileno())
        Path(part).chmod(0o666 & ~_umask())
        Path(part).replace(target)
    except OSError as error:
        raise UsageError(f"the bundle cannot be written: {error}", where=str(target), fix="free space there") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            Path(part).unlink()
    return whole, manifest_digest(raw)


def _entry(content: Content) -> FileEntry:
    total, size = hashlib.sha256(), 0
    for chunk in _chunks(content):
        total.update(chunk)
        size += len(chunk)
    return FileEntry(sha256=total.hexdigest(), size=size)


def _add(archive: zipfile.ZipFile, name: str, content: Content) -> None:
    info = zipfile.ZipInfo(name, date_time=_EPOCH)
    info.compress_type = zipfile.ZIP_STORED
    info.external_attr = 0o100644 << 16
    info.create_system = 3
    info.file_size = len(content) if isinstance(content, bytes) else content.stat().st_size
    with archive.open(info, "w") as file:
        for chunk in _chunks(content):
            file.write(chunk)


def _chunks(content: Content) -> Any:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
