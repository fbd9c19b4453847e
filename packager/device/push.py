"""A bundle's way to one device: what is missing is asked for, sent, checked there, staged, and activated if wanted."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract import archive, codec
from agent.contract.errors import DeviceError, EdgepackError, IntegrityError, TransientDeviceError
from agent.contract.finding import Finding
from agent.contract.slot import Slot, check_slot_name
from agent.contract.transfer import Coming, ReceiveOptions
from packager.device.answers import decoded, part
from packager.device.chunks import SMALLEST_FILE, Places
from packager.device.sending import Sender, Sent
from packager.device.vouching import deliver

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from packager.device.device import Device

# Refusals that the next try heals by itself: what it relied on has changed meanwhile on the device.
_AGAIN = {"resume", "chunk-gone", "blobs-missing", "arrived-damaged"}
_TRIES = 4
_SLOWEST = 2000  # bytes in a second: a link below that does not count as one
_LONGEST_PAUSE = 16.0


@dataclasses.dataclass(frozen=True)
class PushOptions:
    """`slot` names what the bundle is for; it is activated there unless `activate` is false. `dry_run` only says what would
    travel; `repair` reads all that the device has of it. After a lost link it is tried for `patience` seconds to come back.
    """

    slot: str = ""
    activate: bool = True
    dry_run: bool = False
    repair: bool = False
    patience: float = 60.0


class _Offer:
    """The device's answer: what it has, and what it lacks."""

    def __init__(self, answer: Any, address: str) -> None:
        self.whole = part(answer, "whole", bool, address)
        self.missing = decoded(list[Coming], part(answer, "missing", list, address), address)
        self.indexed = part(answer, "indexed", int, address) > 0  # whether chunks can be asked for
        slot = answer.get("slot")
        self.slot = decoded(Slot, slot, address) if slot is not None else None


class Push:
    """One bundle to one device."""

    def __init__(
        self, device: Device, bundle: str | Path, options: PushOptions, on_sent: Callable[[int], None] | None = None
    ) -> None:
        self._device, self._path, self._options = device, Path(bundle), options
        self._on_sent = on_sent or (lambda _: None)
        self._chunks_too = True
        self._findings: list[Finding] = []
        self._sent = Sent()
        if options.slot:
            check_slot_name(options.slot)
        with archive.BundleReader(self._path) as reader:
            self.manifest, self.digest = reader.manifest, reader.digest
            self._raw = reader.manifest_bytes.decode("utf-8")
            self._names = {entry.sha256: name for name, entry in self.manifest.files.items()}
        self._sizes = {entry.sha256: entry.size for entry in self.manifest.files.values()}
        self._places = Places(self._path, self._names)
        self._verified = False
        self._resumed = 0  # the most that had arrived of what was still missing, when it was asked

    def run(self) -> dict[str, Any]:
        """Does it; see Device.push for what it returns and raises."""
        start = time.monotonic()
        offer = self._offer()
        missing = 0 if offer.whole else sum(one.size - one.have for one in offer.missing)
        plan: list[dict[str, Any]] = []
        if self._options.dry_run:
            plan = self._plan(offer)
        elif not offer.whole:
            self._send(offer)
        if not self._options.dry_run:
            self._vouch()
        activated = self._activate(offer) if not self._options.dry_run else None
        sent = sum(one["bytes"] for one in plan) if self._options.dry_run else self._sent.bytes
        return {
            "device": self._device.address,
            "bundle": self.digest,
            "name": self.manifest.name,
            "bytes_sent": sent,
            "bytes_already_there": sum(self._sizes.values()) - missing + self._sent.named_bytes,
            "bytes_resumed": self._resumed,
            "already_there": offer.whole,
            "dry_run": self._options.dry_run,
            "would_send": plan,
            "slot": self._options.slot or None,
            "activated": activated,
            "seconds": time.monotonic() - start,
            "findings": codec.encode(self._findings),
        }

    def _offer(self, *, repair: bool | None = None) -> _Offer:
        asked = {
            "manifest": self._raw,
            "slot": self._options.slot,
            "repair": self._options.repair if repair is None else repair,
        }
        session = self._device.session
        offer = _Offer(session.call("offer", asked, self._device.progress), self._device.address)
        if not offer.whole:
            self._resumed = max(self._resumed, sum(one.have for one in offer.missing))
        return offer

    def _plan(self, offer: _Offer) -> list[dict[str, Any]]:
        """What would travel, file by file, nothing packed."""
        if offer.whole:
            return []
        known = self._known(offer)
        rows = []
        for one in offer.missing:
            there = sum(length for length, _, here in known.get(one.sha256, ()) if here)
            rows.append(
                {"file": self._names[one.sha256], "size": one.size, "bytes": max(0, one.size - max(one.have, there))}
            )
        return rows

    def _send(self, offer: _Offer) -> None:
        """Sends until the bundle is staged. What has arrived of a file stays, so a lost link costs only time."""
        tries, since, before = 0, time.monotonic(), -1
        while True:
            self._verify_here(offer.missing)
            try:
                return self._transfer(offer.missing, self._known(offer))
            except (TransientDeviceError, IntegrityError) as error:
                healed = error.code in _AGAIN
                if isinstance(error, IntegrityError) and not healed:
                    raise
                tries += 1
                arrived = sum(one.have for one in offer.missing)
                if arrived != before:
                    tries, since, before = min(tries, 1), time.monotonic(), arrived
                if (healed and tries > _TRIES) or time.monotonic() - since > self._options.patience:
                    raise
                time.sleep(min(_LONGEST_PAUSE, 0.25 * 2**tries) if tries > 1 else 0.0)
                self._chunks_too = self._chunks_too and error.code != "chunk-gone"
                offer = self._come_back(error, since)
                if offer.whole:
                    return None

    def _come_back(self, lost: EdgepackError, since: float) -> _Offer:
        """Asks again what is missing, as soon as the device answers. Raises `lost` when it does not within the patience."""
        pause = 0.5
        while True:
            self._device.progress(f"{lost.what}: going on from what has arrived")
            try:
                if lost.code not in _AGAIN:
                    self._device.session.transport.close()
                return self._offer(repair=False)
            except TransientDeviceError:
                if time.monotonic() - since > self._options.patience:
                    raise lost from None
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _verify_here(self, missing: Sequence[Coming]) -> None:
        """Raises IntegrityError for a bundle that is not whole, before anything is sent of it."""
        if self._verified or not missing:
            return
        with archive.BundleReader(self._path) as reader:
            reader.verify([self._names[one.sha256] for one in missing])
        self._verified = True

    def _known(self, offer: _Offer) -> dict[str, list[tuple[int, bytes, bool]]]:
        """The chunks of the large files, and whether the device has each in another file."""
        large = [one for one in offer.missing if one.size >= SMALLEST_FILE]
        if not large or not offer.indexed or not self._chunks_too:
            return {}
        session = self._device.session
        made = {one.sha256: self._places.chunks(one.sha256) for one in large}
        hashes = "".join(digest.hex() for chunks in made.values() for _, digest in chunks)
        told = part(session.call("chunks", {"chunks": hashes}), "known", str, self._device.address)
        if len(told) != len(hashes) // 64:
            raise DeviceError(f"{self._device.address} answered with something else than asked", code="reply")
        answers = iter(told)
        return {
            sha256: [(length, digest, next(answers) == "1") for length, digest in chunks]
            for sha256, chunks in made.items()
        }

    def _transfer(self, missing: Sequence[Coming], known: Mapping[str, Sequence[tuple[int, bytes, bool]]]) -> None:
        coming, device = list(missing), self._device
        for one in coming:
            if self._sizes.get(one.sha256) != one.size or not 0 <= one.have <= one.size:
                raise DeviceError(f"{device.address} asked for a file that is not the bundle's", code="reply")
        total = sum(one.size - one.have for one in coming)
        size = f"{total / 1e6:.1f} MB" if total >= 1e6 else f"{total / 1e3:.1f} kB" if total >= 100 else f"{total} B"  # noqa: PLR2004
        device.progress(f"sending {size}")
        options = ReceiveOptions(manifest=self._raw, coming=coming, slot=self._options.slot)

        def opened(line: bytes) -> Sender:
            return Sender(line, self._places, coming, known, self._sent, pack=not device.is_here, on_sent=self._on_sent)

        done = device.session.stream("receive", codec.encode(options), opened, device.progress, longer=total / _SLOWEST)
        if part(done, "bundle", str, device.address) != self.digest:
            raise DeviceError(f"{device.address} staged another bundle than was sent", code="reply")
        self._findings = decoded(list[Finding], part(done, "findings", list, device.address), device.address)

    def _vouch(self) -> None:
        """The signatures are no part of the digest, and may be newer than the bundle that is there."""
        with archive.BundleReader(self._path) as reader:
            deliver(self._device, reader)

    def _activate(self, offer: _Offer) -> dict[str, Any] | None:
        """What the activation said; None where none was wanted, or the slot has the bundle already."""
        slot = self._options.slot
        if not slot or (offer.slot is not None and offer.slot.current == self.digest):
            return None
        if not self._options.activate:
            if offer.whole:
                self._stage_again()
            return None
        done = self._device.activate(slot, self.digest, patience=self._options.patience)
        self._findings += decoded(list[Finding], part(done, "findings", list, self._device.address), slot)
        return done

    def _stage_again(self) -> None:
        """The bundle was there before: the slot is only told that it is meant for it."""
        self._transfer([], {})
