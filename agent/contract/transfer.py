"""How a bundle's files travel: the frames that follow a `receive` job on standard input, and the index of a file's chunks.

A frame is one letter, a length of four bytes (big-endian) and so many bytes:

    D  the next bytes of the file           Z  the same, packed by zlib: at most MAX_FRAME bytes unpacked
    C  length and sha256 of a chunk that the device has: it copies it from there
    I  a part of the file's own chunk index, after the file's last byte
    E  the file is over; the next one follows, in the order of the job

Nothing of a frame is believed: the file counts only when its sha256 is the one that the manifest gives.
"""

from __future__ import annotations

import dataclasses
import struct
from typing import List, Tuple

from agent.contract.errors import IntegrityError

DATA, PACKED, COPY, INDEX, END = b"D", b"Z", b"C", b"I", b"E"
HEADER = struct.Struct(">cI")
CHUNK = struct.Struct(">I32s")  # length, sha256
MAX_FRAME = 1 << 20
MAX_CHUNK = 1 << 18
MIN_CHUNK = 1 << 14
MAX_INDEX = CHUNK.size * (1 << 18)


@dataclasses.dataclass(frozen=True)
class Coming:
    """A file on its way: it is sent from byte `have` on, since so much of it is on the device."""

    sha256: str
    size: int
    have: int = 0


@dataclasses.dataclass(frozen=True)
class ReceiveOptions:
    """`manifest` is the bundle's, to the letter; `coming` the files in the order of their frames; `slot` the slot that the
    bundle is meant for, or "".
    """

    manifest: str
    coming: List[Coming]
    slot: str = ""


def frame(kind: bytes, payload: bytes) -> bytes:
    """One frame, ready to send."""
    return HEADER.pack(kind, len(payload)) + payload


def pack_index(chunks: List[Tuple[int, bytes]]) -> bytes:
    """Length and sha256 of each of a file's chunks, in order, as they stand beside the file."""
    return b"".join(CHUNK.pack(length, digest) for length, digest in chunks)


def unpack_index(raw: bytes, size: int) -> List[Tuple[int, bytes]]:
    """The chunks of a file of `size` bytes. Raises IntegrityError when they do not make up such a file."""
    if len(raw) % CHUNK.size or len(raw) > MAX_INDEX:
        raise IntegrityError("a chunk index of %d bytes" % len(raw), code="chunk-index")
    chunks = list(CHUNK.iter_unpack(raw))
    if sum(length for length, _ in chunks) != size or any(not 0 < length <= MAX_CHUNK for length, _ in chunks):
        raise IntegrityError("the chunk index is not of this file", code="chunk-index")
    return chunks
