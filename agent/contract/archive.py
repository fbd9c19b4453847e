"""The bundle as an archive: an uncompressed zip, `manifest.json` first, signatures last, read with suspicion.

Both sides use this: nothing of a bundle is believed before its name, size and sha256 agree with the manifest, and nothing
is written outside the folder it is unpacked into.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import struct
import zipfile
from pathlib import Path
from types import TracebackType
from typing import IO, Dict, Generator, Iterable, Iterator, Optional, Type, Union

from agent.contract import signatures
from agent.contract.errors import IntegrityError, UsageError
from agent.contract.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, Manifest, manifest_digest, parse_manifest

_CHUNK = 1 << 20
_MAX_FILES = 10000
# What zipfile raises over damaged bytes; RuntimeError is its word for flags that it does not support.
_UNREADABLE = (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError)
_MAX_DEPTH = 8
# Fixed parts of a zip's end: its record (22 bytes), before it zip64's locator (20) and record (56).
_END, _TAIL = 22, 98
_MAX_DIRECTORY = 8 << 20
# One component: no separators, no leading dot, nothing a shell or a file system could read as something else.
_COMPONENT = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,199}\Z")


class BundleReader:
    """An open bundle whose structure has been checked; files are checked as they are read.

    Raises IntegrityError when the archive is not exactly what its manifest says, ContractError when the manifest cannot be
    read (a newer schema, an unknown key).
    """

    def __init__(self, path: Union[str, Path]) -> None:
        self.path = Path(path)
        self.signatures: Dict[str, bytes] = {}
        try:
            self._check_directory()
            self._zip = zipfile.ZipFile(str(self.path))
        except FileNotFoundError as error:
            raise UsageError(
                "there is no such bundle",
                where=str(self.path),
                expected="a file that `edgepack build` made",
                code="no-bundle",
            ) from error
        except _UNREADABLE as error:
            raise self._broken("not a whole bundle: %s" % error, "truncated or not a bundle") from error
        try:
            raw = self._read_manifest()
            self.manifest_bytes = raw
            self.digest = manifest_digest(raw)
            self.manifest: Manifest = parse_manifest(raw, source="%s in %s" % (MANIFEST_NAME, self.path.name))
            self._check_structure()
            self._read_signatures()
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> BundleReader:  # noqa: PYI034 - typing.Self is younger than Python 3.8
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self._zip.close()

    def read(self, name: str) -> bytes:
        """A file's bytes, checked against the manifest."""
        return b"".join(self._chunks(name))

    def verify(self, names: Optional[Iterable[str]] = None) -> None:
        """Reads every file (or those named) and checks its size and sha256."""
        for name in self.manifest.files if names is None else names:
            for _ in self._chunks(name):
                pass

    def extract(self, folder: Union[str, Path]) -> None:
        """Unpacks into `folder`, which must be new or empty, every file checked and synced to the disk."""
        base = Path(folder)
        base.mkdir(parents=True, exist_ok=True)
        if any(base.iterdir()):
            raise IntegrityError("%s is not empty" % base, expected="an empty or new folder", code="not-empty")
        self._write(base / MANIFEST_NAME, [self._zip.read(MANIFEST_NAME)])
        for name in self.manifest.files:
            target = base.joinpath(*name.split("/"))
            target.parent.mkdir(parents=True, exist_ok=True)
            # Closed at once when the disk is full, or the bundle's file would stay open as long as the error lives.
            with contextlib.closing(self._chunks(name)) as chunks:
                self._write(target, chunks)
        write_signatures(base, self.signatures)
        for parent in sorted({base, *(path.parent for path in base.rglob("*"))}):
            sync_folder(parent)

    @staticmethod
    def _write(target: Path, chunks: Iterable[bytes]) -> None:
        with open(str(target), "xb") as file:
            file.writelines(chunks)
            file.flush()
            os.fsync(file.fileno())

    def _check_directory(self) -> None:
        """The zip's directory is bounded before zipfile reads all of it into memory; its end must be the file's end."""
        with open(str(self.path), "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL))
            tail = file.read(_TAIL)
        if tail[-_END:][:4] != b"PK\5\6" or len(tail) < _END:
            raise self._broken("not a whole bundle: it does not end as a zip file", "truncated or not a bundle")
        count, length = struct.unpack("<HL", tail[-_END:][10:16])
        if tail[-_END - 20 :][:4] == b"PK\6\7":
            count, length = struct.unpack("<QQ", tail[:48][32:48]) if tail[:4] == b"PK\6\6" else (_MAX_FILES + 99, 0)
        if count > _MAX_FILES + 1 + signatures.MAX_SIGNATURES or length > _MAX_DIRECTORY:
            raise self._broken("%d files" % count, "at most %d" % _MAX_FILES)

    def _read_manifest(self) -> bytes:
        entries = self._zip.infolist()
        if not entries or entries[0].filename != MANIFEST_NAME:
            raise self._broken("%s is not the first file" % MANIFEST_NAME, "a bundle made by `edgepack build`")
        if entries[0].file_size > MAX_MANIFEST_BYTES:
            raise self._broken("%s has %d bytes" % (MANIFEST_NAME, entries[0].file_size), "at most 4 MiB")
        self._check_entry(entries[0])
        try:
            return self._zip.read(entries[0])
        except _UNREADABLE as error:
            raise self._broken("%s cannot be read: %s" % (MANIFEST_NAME, error), "an undamaged bundle") from error

    def _check_structure(self) -> None:
        entries = self._zip.infolist()
        if len(entries) > _MAX_FILES:
            raise self._broken("%d files" % len(entries), "at most %d" % _MAX_FILES)
        all_names = [entry.filename for entry in entries]
        names = [name for name in all_names if not signatures.is_signature(name)]
        for name in [*names, *self.manifest.files, self.manifest.model]:
            check_name(name, self.path.name)
        for entry in entries:
            self._check_entry(entry)
        expected = [MANIFEST_NAME, *sorted(self.manifest.files)]
        if sorted(names) != sorted(expected) or any(map(signatures.is_signature, all_names[: len(names)])):
            extra, missing = set(names) - set(expected), set(expected) - set(names)
            twice = {name for name in names if names.count(name) > 1}
            told = ["signatures not at the end"] if not (extra or missing or twice) else []
            told += [
                "%s: %s" % (word, ", ".join(sorted(some)))
                for word, some in (("not in the manifest", extra), ("missing", missing), ("twice", twice))
                if some
            ]
            raise self._broken("; ".join(told), "exactly the files that the manifest lists")
        if any(name.split("/")[0] == signatures.FOLDER for name in self.manifest.files):
            raise self._broken("a file that the digest counts lies among the signatures", "files elsewhere")
        if self.manifest.model not in self.manifest.files:
            raise self._broken("the model %r is not among the files" % self.manifest.model, "a listed file")
        for entry in entries[1 : len(names)]:
            size = self.manifest.files[entry.filename].size
            if entry.file_size != size:
                raise self._broken("%s has %d bytes" % (entry.filename, entry.file_size), "%d bytes" % size)
        if sum(entry.file_size for entry in entries) > self.path.stat().st_size:
            raise self._broken("its files overlap", "files beside one another, so that nothing can swell")

    def _read_signatures(self) -> None:
        entries = self._zip.infolist()[1 + len(self.manifest.files) :]
        if len(entries) > signatures.MAX_SIGNATURES:
            raise self._broken("%d signatures" % len(entries), "at most %d" % signatures.MAX_SIGNATURES)
        for entry in entries:
            if entry.filename in self.signatures or entry.file_size > signatures.MAX_BYTES:
                raise self._broken("%s is there twice, or too large" % entry.filename, "one signature for each key")
            try:
                self.signatures[entry.filename] = self._zip.read(entry)
            except _UNREADABLE as error:
                raise self._broken("%s cannot be read: %s" % (entry.filename, error), "an undamaged bundle") from error
        signatures.check_all(self.signatures, self.path.name)

    def _check_entry(self, entry: zipfile.ZipInfo) -> None:
        mode = entry.external_attr >> 16
        if entry.is_dir() or (mode and not stat.S_ISREG(mode)):
            raise self._broken("%r is not a plain file" % entry.filename, "files only: no folders, links or devices")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise self._broken("%r is compressed" % entry.filename, "stored files, so that nothing can swell")
        if entry.flag_bits & 0x1:
            raise self._broken("%r is encrypted" % entry.filename, "plain files")

    def _chunks(self, name: str) -> Generator[bytes, None, None]:
        entry = self.manifest.files.get(name)
        if entry is None:
            raise self._broken("no file %r" % name, "one of: %s" % ", ".join(sorted(self.manifest.files)))
        found = hashlib.sha256()
        try:
            with self._zip.open(name) as file:
                yield from _hashed(file, found)
        except _UNREADABLE as error:
            raise self._broken("%s cannot be read: %s" % (name, error), "an undamaged bundle") from error
        if found.hexdigest() != entry.sha256:
            raise self._broken("%s has sha256 %s" % (name, found.hexdigest()), entry.sha256)

    def _broken(self, what: str, expected: str) -> IntegrityError:
        return IntegrityError(
            "the bundle is not whole: %s" % what,
            where=str(self.path),
            expected=expected,
            fix="build or copy the bundle again",
            code="bundle-broken",
        )


def check_name(name: str, where: str) -> None:
    """Raises IntegrityError unless `name` is a plain relative path of plain components."""
    parts = name.split("/")
    if not parts or len(parts) > _MAX_DEPTH or not all(_COMPONENT.match(part) for part in parts):
        raise IntegrityError(
            "the bundle names a file %.200r" % name,
            where=where,
            expected="plain relative names (letters, digits, . _ -), no .., no absolute paths",
            code="bundle-path",
        )


def read_manifest_file(folder: Path) -> Manifest:
    """The manifest of an unpacked bundle. Raises IntegrityError when it is gone, ContractError when it cannot be read."""
    return parse_manifest(_read_manifest(folder), source=str(folder / MANIFEST_NAME))


def verify_folder(folder: Path, digest: str) -> Manifest:
    """Checks an unpacked bundle, file by file. Raises IntegrityError that names the first file that is wrong."""
    raw = _read_manifest(folder)
    if manifest_digest(raw) != digest:
        raise IntegrityError("the manifest's digest is %s" % manifest_digest(raw), where=str(folder), expected=digest)
    manifest = parse_manifest(raw, source=str(folder))
    for name, entry in manifest.files.items():
        check_name(name, str(folder))
        found = hashlib.sha256()
        try:
            with open(str(folder.joinpath(*name.split("/"))), "rb") as file:
                for _ in _hashed(file, found):
                    pass
        except OSError as error:
            raise IntegrityError("%s cannot be read: %s" % (name, error), where=str(folder)) from error
        if found.hexdigest() != entry.sha256:
            raise IntegrityError(
                "%s has changed" % name,
                where=str(folder),
                expected="sha256 %s" % entry.sha256,
                fix="on a device: edgepack devices remove-bundle DEVICE %s, then push it again" % digest[:19],
                code="file-changed",
            )
    return manifest


def read_signatures(folder: Path) -> Dict[str, bytes]:
    """The signatures that lie beside an unpacked bundle, unread. Raises IntegrityError when they cannot be."""
    found: Dict[str, bytes] = {}
    try:
        for path in sorted((folder / signatures.FOLDER).glob("*.sig"))[: signatures.MAX_SIGNATURES]:
            with open(str(path), "rb") as file:
                found["%s/%s" % (signatures.FOLDER, path.name)] = file.read(signatures.MAX_BYTES + 1)
    except OSError as error:
        raise IntegrityError("the signatures cannot be read: %s" % error, where=str(folder)) from error
    return found


def write_signatures(folder: Path, found: Dict[str, bytes]) -> None:
    """Puts signatures beside an unpacked bundle, each in one step; what is there stays. Raises IntegrityError for broken
    ones, OSError.
    """
    signatures.check_all(found, str(folder))
    place = folder / signatures.FOLDER
    for name, raw in found.items():
        target = folder.joinpath(*name.split("/"))
        if target.is_file() and target.read_bytes() == raw:
            continue
        place.mkdir(exist_ok=True)
        part = target.with_suffix(".part")
        with open(str(part), "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        os.replace(str(part), str(target))
        sync_folder(place)
        sync_folder(folder)


def _read_manifest(folder: Path) -> bytes:
    path = folder / MANIFEST_NAME
    try:
        return path.read_bytes()
    except OSError as error:
        raise IntegrityError("the unpacked bundle has no readable manifest: %s" % error, where=str(path)) from error


def _hashed(file: IO[bytes], total: hashlib._Hash) -> Iterator[bytes]:
    while True:
        chunk = file.read(_CHUNK)
        if not chunk:
            return
        total.update(chunk)
        yield chunk


def sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` survive a power cut."""
    handle = os.open(str(folder), os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def model_bytes(manifest: Manifest) -> int:
    """The size of the model, with the files that belong to it."""
    folder = manifest.model.rpartition("/")[0] + "/"
    return sum(entry.size for name, entry in manifest.files.items() if name.startswith(folder))
