"""The frames of a bundle's files, made as they go out: chunks that the device has are named, and packed only what pays."""

from __future__ import annotations

import dataclasses
import threading
import time
import zlib
from typing import IO, TYPE_CHECKING

from agent.contract.transfer import CHUNK, COPY, DATA, END, INDEX, MAX_FRAME, PACKED, Coming, frame, pack_index
from packager.device.chunks import SMALLEST_FILE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from packager.device.chunks import Places

PIECE = 1 << 18
_WORTH = 0.9  # packing must save a tenth of the time, or of the bytes, to be worth its heat
_SAMPLE = 1 << 16
_TRUSTED = 1 << 20  # bytes after which the measured rate is believed: the first ones only fill buffers
_MEMORY = 8 << 20


class Pace:
    """How fast the link takes bytes, and how fast this machine packs them: what decides whether packing pays."""

    def __init__(self) -> None:
        self._bytes = 0.0
        self._seconds = 0.0
        self._seen = 0

    def sent(self, size: int, seconds: float) -> None:
        """So many bytes went out in so long a time. What lies far back counts less and less."""
        self._seen += size
        self._bytes, self._seconds = self._bytes + size, self._seconds + seconds
        if self._bytes > _MEMORY:
            self._bytes, self._seconds = self._bytes / 2, self._seconds / 2

    def pays(self, sample: bytes) -> bool:
        """Whether data like `sample` arrives sooner when it is packed first."""
        if self._seen < _TRUSTED or not sample:
            return False
        start = time.perf_counter()
        share = len(zlib.compress(sample, 1)) / len(sample)
        packing = (time.perf_counter() - start) / len(sample)
        link = self._seconds / self._bytes
        return share < _WORTH and packing + share * link < _WORTH * link


@dataclasses.dataclass
class Sent:
    """What has gone out so far. `saved_bytes` were packed away; `named_bytes` are of chunks that the device copies."""

    bytes: int = 0
    saved_bytes: int = 0
    named_bytes: int = 0


class Sender:
    """Standard input of a `receive` job: `read` gives the next frame. `first` is the job's line; `known` has the chunks of
    files, and whether the device has each; what goes out is added to `sent`.
    """

    def __init__(
        self,
        first: bytes,
        places: Places,
        coming: Sequence[Coming],
        known: Mapping[str, Sequence[tuple[int, bytes, bool]]],
        sent: Sent,
        *,
        pack: bool,
        on_sent: Callable[[int], None],
    ) -> None:
        self._first, self._places, self._coming, self._known = first, places, coming, known
        self._pack, self._on_sent = pack, on_sent
        self.sent = sent
        self._pace = Pace()
        self._frames = self._all()

    def read(self, _size: int = -1, /) -> bytes:
        """The next frame, nothing at the end."""
        return next(self._frames, b"")

    def _all(self) -> Iterator[bytes]:
        yield self._first
        with self._places.bundle.open("rb") as file:
            for one in self._coming:
                index = _Later(self._places, one) if one.size >= SMALLEST_FILE else None
                offset, _ = self._places.range(one.sha256)
                for start, length, digest in self._spans(one):
                    if digest is not None:
                        yield self._out(frame(COPY, CHUNK.pack(length, digest)))
                        self.sent.named_bytes += length
                    else:
                        yield from self._piece(file, offset + start, length)
                if index is not None:
                    raw = index.value()
                    for at in range(0, len(raw), MAX_FRAME):
                        yield self._out(frame(INDEX, raw[at : at + MAX_FRAME]))
                yield self._out(frame(END, b""))

    def _spans(self, one: Coming) -> Iterator[tuple[int, int, bytes | None]]:
        """What is sent and what is only named, in order: offset, length, and the digest of a chunk that the device has."""
        sent, position = one.have, 0
        for length, digest, there in self._known.get(one.sha256, ()):
            start, position = position, position + length
            if start >= one.have and there:
                if start > sent:
                    yield sent, start - sent, None
                yield start, length, digest
                sent = position
        if one.size > sent:
            yield sent, one.size - sent, None

    def _piece(self, file: IO[bytes], start: int, length: int) -> Iterator[bytes]:
        packing, decided = False, 0
        file.seek(start)
        while length:
            data = file.read(min(PIECE, length))
            if not data:
                raise OSError("the bundle became shorter while it was sent")
            length -= len(data)
            if self._pack and decided <= 0:
                packing, decided = self._pace.pays(data[:_SAMPLE]), _MEMORY if self._seen() else PIECE
            decided -= len(data)
            whole = frame(DATA, data)
            if packing:
                packed = frame(PACKED, zlib.compress(data, 1))
                if len(packed) < len(whole):
                    self.sent.saved_bytes += len(whole) - len(packed)
                    whole = packed
            began = time.perf_counter()
            yield self._out(whole)
            self._pace.sent(len(whole), time.perf_counter() - began)

    def _seen(self) -> bool:
        return self.sent.bytes >= _TRUSTED

    def _out(self, data: bytes) -> bytes:
        self.sent.bytes += len(data)
        self._on_sent(len(data))
        return data


class _Later:
    """A file's chunk index, made while its bytes go out."""

    def __init__(self, places: Places, one: Coming) -> None:
        self._raw = b""
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._make, args=(places, one.sha256), daemon=True)
        self._thread.start()

    def value(self) -> bytes:
        """The index. Raises what making it raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._raw

    def _make(self, places: Places, sha256: str) -> None:
        try:
            self._raw = pack_index(places.chunks(sha256))
        except Exception as error:  # noqa: BLE001 - raised again where it is waited for
            self._error = error
