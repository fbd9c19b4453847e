"""Takes the frames of a bundle's files from standard input and makes blobs of them."""

from __future__ import annotations

import hashlib
import io
import zlib
from typing import Dict, Tuple

from agent.blobs import Blobs
from agent.contract.errors import IntegrityError, TransientDeviceError
from agent.contract.transfer import CHUNK, COPY, DATA, END, HEADER, INDEX, MAX_FRAME, MAX_INDEX, PACKED, Coming


class Receiver:
    """Reads one file's frames after the other."""

    def __init__(self, blobs: Blobs, stream: io.BufferedReader) -> None:
        self._blobs, self._stream = blobs, stream
        self._known: Dict[bytes, Tuple[str, int, int]] = {}
        self.copied = 0  # bytes that came from chunks on this device

    def take(self, coming: Coming) -> None:
        """Receives one file. Raises TransientDeviceError when the stream ends too soon, IntegrityError for the unasked."""
        index = b""
        with self._blobs.coming(coming.sha256, coming.have) as file:
            while True:
                kind, payload = self._frame()
                if kind == END:
                    break
                if kind == INDEX:
                    index += payload
                    if len(index) > MAX_INDEX:
                        raise _unasked("an index of more than %d bytes" % MAX_INDEX)
                    continue
                data = self._data(kind, payload)
                if file.size + len(data) > coming.size:
                    raise _unasked("more bytes than the file has")
                file.write(data)
            if file.size != coming.size:
                raise _unasked("%d bytes of a file of %d" % (file.size, coming.size))
            file.done()
        if index:
            self._blobs.set_index(coming.sha256, coming.size, index)

    def _frame(self) -> Tuple[bytes, bytes]:
        kind, length = HEADER.unpack(self._exactly(HEADER.size))
        if length > MAX_FRAME:
            raise _unasked("a frame of %d bytes" % length)
        return kind, self._exactly(length)

    def _exactly(self, size: int) -> bytes:
        data = self._stream.read(size)
        if len(data) < size:
            raise TransientDeviceError("the transfer was cut", fix="push again: it goes on from there", code="short")
        return data

    def _data(self, kind: bytes, payload: bytes) -> bytes:
        if kind == DATA:
            return payload
        if kind == PACKED:
            return _unpack(payload)
        if kind == COPY and len(payload) == CHUNK.size:
            length, digest = CHUNK.unpack(payload)
            return self._chunk(length, digest)
        raise _unasked("a frame of kind %r" % kind)

    def _chunk(self, length: int, digest: bytes) -> bytes:
        """A chunk of a file that is here, checked again. Raises TransientDeviceError, code chunk-gone."""
        if not self._known:
            self._known = dict(self._blobs.chunks())
        path, offset, known = self._known.get(digest, ("", 0, -1))
        if known == length:
            with open(path, "rb") as file:
                file.seek(offset)
                data = file.read(length)
            if hashlib.sha256(data).digest() == digest:
                self.copied += length
                return data
        raise TransientDeviceError("a chunk is not on the device any more", fix="push again", code="chunk-gone")


def _unpack(payload: bytes) -> bytes:
    """The bytes in a packed frame, no more than a frame may have."""
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(payload, MAX_FRAME)
    except zlib.error as error:
        raise _unasked("a packed frame that is broken: %s" % error) from error
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise _unasked("a packed frame that does not end, or swells")
    return data


def _unasked(what: str) -> IntegrityError:
    return IntegrityError("the host sent %s" % what, code="transfer")
