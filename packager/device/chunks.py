"""Content-defined chunks of a bundle's files: where a few bytes are inserted, only the chunks around them change."""

from __future__ import annotations

import hashlib
import mmap
import struct
import zipfile
from typing import TYPE_CHECKING

from agent.contract.errors import IntegrityError
from agent.contract.transfer import MAX_CHUNK, MIN_CHUNK

if TYPE_CHECKING:
    from pathlib import Path

AVERAGE_CHUNK = 1 << 16
SMALLEST_FILE = 1 << 20  # below, the question which chunks are there costs more than it saves
_LOCAL_HEADER = struct.Struct("<4s22xHH")


class Places:
    """Where the files of a bundle lie in it: they are stored, so each is one range of bytes."""

    def __init__(self, bundle: Path, names: dict[str, str]) -> None:
        self.bundle = bundle
        self._ranges: dict[str, tuple[int, int]] = {}
        with zipfile.ZipFile(bundle) as archive, bundle.open("rb") as file:
            for sha256, name in names.items():
                entry = archive.getinfo(name)
                file.seek(entry.header_offset)
                magic, name_length, extra_length = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
                if magic != b"PK\x03\x04":
                    raise IntegrityError("the bundle is not whole: no file where one should be", where=str(bundle))
                start = entry.header_offset + _LOCAL_HEADER.size + name_length + extra_length
                self._ranges[sha256] = (start, entry.file_size)

    def range(self, sha256: str) -> tuple[int, int]:
        """Offset and length of a file in the bundle."""
        return self._ranges[sha256]

    def chunks(self, sha256: str) -> list[tuple[int, bytes]]:
        """Length and sha256 of each chunk of the file. FastCDC (Xia et al., USENIX ATC 2016), cut at 16 to 256 KiB."""
        from fastcdc import fastcdc  # type: ignore[import-untyped]

        start, size = self._ranges[sha256]
        found: list[tuple[int, bytes]] = []
        with (
            self.bundle.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole,
            memoryview(whole) as all_bytes,
            all_bytes[start : start + size] as view,
        ):
            for one in fastcdc(view, min_size=MIN_CHUNK, avg_size=AVERAGE_CHUNK, max_size=MAX_CHUNK):
                with view[one.offset : one.offset + one.length] as piece:
                    found.append((one.length, hashlib.sha256(piece).digest()))
        return found
