"""Files by their sha256: ROOT/blobs/SHA, beside it SHA.chunks where the host made an index; on their way in incoming/SHA.part.

Bundles are folders of hard links to them, so a file that two bundles share is there once.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
from pathlib import Path
from typing import IO, Iterator, Optional, Set, Tuple

from agent.contract.archive import sync_folder
from agent.contract.errors import IntegrityError, TransientDeviceError
from agent.contract.transfer import unpack_index
from agent.disk import write_by

_SHA = re.compile(r"^[0-9a-f]{64}\Z")
_PIECE = 1 << 20
_TRIES = 100  # to get hold of a file that others make and move
INDEX = ".chunks"
PART = ".part"
READ_ONLY = 0o444  # an application that wrote into a file would change every bundle that has it


class Blobs:
    """The files of one store."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "blobs"
        self.incoming = root / "incoming"

    def path(self, sha256: str) -> Path:
        """Where the file lies or would lie. Raises IntegrityError for what is no digest."""
        if not _SHA.match(sha256):
            raise IntegrityError("not a sha256: %.100r" % sha256)
        return self.folder / sha256

    def has(self, sha256: str, size: int) -> bool:
        """Whether the file is here, by its length: it came by rename, so only damage can have changed it."""
        return _size(self.path(sha256)) == size

    def arrived(self, sha256: str, size: int) -> int:
        """How much of it an earlier transfer brought."""
        came = _size(self._part(sha256))
        return came if 0 < came <= size else 0

    def sound(self, sha256: str) -> bool:
        """Reads all of the file; one that is not what its name says is deleted, so that it can be sent again."""
        path = self.path(sha256)
        with contextlib.suppress(FileNotFoundError):
            if file_digest(path) == sha256:
                return True
            path.unlink()
        return False

    @contextlib.contextmanager
    def coming(self, sha256: str, have: int) -> Iterator[Incoming]:
        """A file to write on from byte `have`. What has arrived stays when the transfer is cut, and goes with a full disk.

        An agent whose link hangs may still hold the first part of it: then its bytes are copied.
        """
        place = self._part(sha256)
        file = claim(place)
        own = place
        if file is None:
            own = place.with_name("%s.%s%s" % (sha256, secrets.token_hex(4), PART))
            file = open(str(own), "x+b")  # noqa: SIM115 - closed below
        try:
            with file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if own != place and have:
                    with open(str(place), "rb") as other:
                        _copy(other, file, have)
                yield Incoming(self, sha256, file, own, have)
        except OSError:
            with contextlib.suppress(FileNotFoundError):
                own.unlink()
            raise
        finally:
            if own != place:
                with contextlib.suppress(FileNotFoundError):
                    own.unlink()

    def adopt(self, path: Path, sha256: str) -> None:
        """A file that has been checked becomes a blob, too."""
        blob = self.path(sha256)
        os.chmod(str(path), READ_ONLY)
        if not self.sound(sha256):
            link(path, blob)
            return
        path.unlink()  # the same bytes, once
        link(blob, path)

    def set_index(self, sha256: str, size: int, raw: bytes) -> None:
        """Keeps the file's chunk index. Raises IntegrityError when it is of another file."""
        unpack_index(raw, size)
        place = self.path(sha256).with_name(sha256 + INDEX)
        # A name of its own: of two agents that receive the same file one would move the other's away under it.
        write_by(self.incoming / ("%s.%s%s" % (place.name, secrets.token_hex(4), PART)), place, raw)

    def indexed(self) -> int:
        """How many files have a chunk index."""
        return sum(1 for _ in self.folder.glob("*" + INDEX))

    def chunks(self) -> Iterator[Tuple[bytes, Tuple[str, int, int]]]:
        """Every chunk that the indexes know, and where it lies: file, offset, length. Whoever reads it checks its sha256."""
        for index in sorted(self.folder.glob("*" + INDEX)):
            blob = index.with_name(index.name[: -len(INDEX)])
            try:
                entries = unpack_index(index.read_bytes(), blob.stat().st_size)
            except (OSError, IntegrityError):
                continue  # of a file that has gone, or written half by a power cut: worth nothing
            offset = 0
            for length, digest in entries:
                yield digest, (str(blob), offset, length)
                offset += length

    def sweep(self, keep: Set[str]) -> int:
        """Deletes the files that are not in `keep`, and indexes without a file; how many bytes that freed."""
        freed = 0
        for path in sorted(self.folder.iterdir()):
            sha256 = path.name[: -len(INDEX)] if path.name.endswith(INDEX) else path.name
            if sha256 in keep:
                continue
            with contextlib.suppress(FileNotFoundError):
                told = path.stat()
                path.unlink()
                freed += told.st_size if told.st_nlink == 1 else 0
        return freed

    def drop_parts(self) -> int:
        """Deletes what transfers that were given up have left; the bytes freed."""
        freed = 0
        for path in self.incoming.glob("*" + PART):
            if _SHA.match(path.name[:64]) and not held(path):
                freed += max(0, _size(path))
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()
        return freed

    def _part(self, sha256: str) -> Path:
        return self.incoming / (self.path(sha256).name + PART)


class Incoming:
    """A file that is being received: what is written is hashed on the way."""

    def __init__(self, blobs: Blobs, sha256: str, file: IO[bytes], path: Path, have: int) -> None:
        self._blobs, self._sha256, self._file, self._path = blobs, sha256, file, path
        self._hash = hashlib.sha256()
        self.size = 0
        file.seek(0)
        for piece in iter(lambda: file.read(min(_PIECE, have - self.size)), b""):
            self._hash.update(piece)
            self.size += len(piece)
        if self.size != have:
            what = "of %d bytes that had arrived %d are there" % (have, self.size)
            raise TransientDeviceError(what, fix="push again", code="resume")
        file.seek(have)
        file.truncate()

    def write(self, data: bytes) -> None:
        """Takes the next bytes."""
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    def done(self) -> None:
        """All of it came: checked, on the disk, and in its place. Raises IntegrityError, and what came is deleted."""
        if self._hash.hexdigest() != self._sha256:
            self._path.unlink()
            raise IntegrityError(
                "a file arrived as another one: sha256 %s" % self._hash.hexdigest(),
                expected="sha256 %s" % self._sha256,
                fix="verify the bundle (edgepack verify), then push again",
                code="arrived-damaged",
            )
        self._file.flush()
        os.fchmod(self._file.fileno(), READ_ONLY)
        os.fsync(self._file.fileno())
        if self._blobs.has(
            self._sha256, self.size
        ):  # another agent was faster, and bundles are linked to what it brought
            self._path.unlink()
        else:
            os.replace(str(self._path), str(self._blobs.path(self._sha256)))
        sync_folder(self._blobs.folder)


def _copy(source: IO[bytes], target: IO[bytes], size: int) -> None:
    while size and (piece := source.read(min(_PIECE, size))):
        target.write(piece)
        size -= len(piece)


_NO_LINKS = (errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS)


def link(source: Path, target: Path) -> None:
    """A hard link, or a copy on file systems that have none."""
    try:
        os.link(str(source), str(target))
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        shutil.copyfile(str(source), str(target))
        with open(str(target), "rb") as file:
            os.fsync(file.fileno())


def file_digest(path: Path) -> str:
    """The sha256 of a file, as hex digits."""
    total = hashlib.sha256()
    with open(str(path), "rb") as file:
        for piece in iter(lambda: file.read(_PIECE), b""):
            total.update(piece)
    return total.hexdigest()


def held(path: Path) -> bool:
    """Whether an agent is writing to the file now."""
    with contextlib.suppress(FileNotFoundError), open(str(path), "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def claim(path: Path) -> Optional[IO[bytes]]:
    """The file, made where it is not there, open and locked; None when another agent holds it."""
    for _ in range(_TRIES):
        try:
            file = os.fdopen(os.open(str(path), os.O_RDWR | os.O_CREAT, 0o600), "r+b")
        except PermissionError:
            if not os.access(str(path.parent), os.W_OK | os.X_OK):
                raise
            # All of it came, and it is read-only already: its agent is about to move it, or was killed just there.
            if held(path):
                return None
            with contextlib.suppress(FileNotFoundError):
                os.chmod(str(path), 0o600)
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                return file
        file.close()  # it became a blob between our two calls
    return None
