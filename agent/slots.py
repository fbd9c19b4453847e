"""Slots: ROOT/slots/NAME is a link to a folder with `current`, `previous` and `slot.json`; a change is one rename of it.

So whatever is cut in the middle, everything about a slot is of the old state or of the new one, and an application finds
its bundle at ROOT/slots/NAME/current/.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

from agent.contract import codec
from agent.contract.archive import sync_folder
from agent.contract.errors import DeviceError, IntegrityError
from agent.contract.slot import Slot, check_slot_name
from agent.disk import disk_errors, write_file
from agent.store import Store

_KEPT_STATES = 2  # the present one, and the last: someone may be on the way through it


class Slots:
    """The slots of a store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.folder = store.root / "slots"

    def names(self) -> List[str]:
        """The slots that are there."""
        if not self.folder.is_dir():
            return []
        return sorted(path.name for path in self.folder.iterdir() if not path.name.startswith("."))

    def all(self) -> List[Slot]:
        """Every slot. Raises IntegrityError for one that cannot be read."""
        return [self.get(name) for name in self.names()]

    def get(self, name: str) -> Slot:
        """The slot; one that nobody has used is empty. Raises IntegrityError, ContractError."""
        path = self.folder / check_slot_name(name) / "slot.json"
        try:
            raw = path.read_bytes()
        except FileNotFoundError as error:
            if not os.path.lexists(str(self.folder / name)):
                return Slot(name)
            raise IntegrityError("the slot %r is not whole" % name, where=str(path), code="slot-broken") from error
        slot = codec.loads(Slot, raw, source=str(path))
        if slot.name != name:
            raise IntegrityError("the slot %r holds the state of %r" % (name, slot.name), code="slot-broken")
        return slot

    def path(self, name: str) -> Path:
        """Where an application finds the slot's bundle, for good."""
        return self.folder / check_slot_name(name) / "current"

    def held(self) -> Dict[str, List[str]]:
        """By digest, what holds it: "vision current"."""
        held: Dict[str, List[str]] = {}
        for slot in self.all():
            for role in ("current", "previous", "staged"):
                digest = getattr(slot, role)
                if digest is not None:
                    held.setdefault(digest, []).append("%s %s" % (slot.name, role))
        return held

    def change(self, slot: Slot, **changes: Any) -> Slot:
        """The slot after `changes`, on the disk. The store's lock must be held. Raises DeviceError."""
        new = dataclasses.replace(slot, sequence=slot.sequence + 1, changed_unix=time.time(), **changes)
        state = self.folder / (".%s.%d" % (new.name, new.sequence))
        link = self.folder / (".%s.link" % new.name)
        with disk_errors(self.folder):
            self.folder.mkdir(mode=0o700, exist_ok=True)
            shutil.rmtree(str(state), ignore_errors=True)
            try:
                state.mkdir(mode=0o700)
                write_file(state / "slot.json", codec.dumps(new).encode("utf-8"))
                for role in ("current", "previous"):
                    digest = getattr(new, role)
                    if digest is not None:
                        _link(os.path.join("..", "..", "bundles", self.store.folder(digest).name), state / role)
                sync_folder(state)
                _replace_link(state.name, link, self.folder / new.name)
            except BaseException:
                if _target(self.folder / new.name) != state.name:  # an interrupt may come after the rename, too
                    shutil.rmtree(str(state), ignore_errors=True)
                raise
            sync_folder(self.folder)
        self._forget(new)
        return new

    def _forget(self, slot: Slot) -> None:
        """Removes states that are over, and what a cut left of others."""
        kept = {".%s.%d" % (slot.name, slot.sequence - back) for back in range(_KEPT_STATES)}
        for path in self.folder.glob(".%s.*" % slot.name):
            if path.name not in kept:
                shutil.rmtree(str(path), ignore_errors=True)


def current_digest(root: Path, name: str) -> Optional[str]:
    """The digest that the slot's link points to: one look at the disk, for those who look often. None: nothing is active."""
    target = _target(root / "slots" / check_slot_name(name) / "current")
    return "sha256:" + os.path.basename(target) if target else None


def _target(link: Path) -> str:
    try:
        return os.readlink(str(link))
    except OSError:
        return ""


def _replace_link(target: str, part: Path, place: Path) -> None:
    if os.path.lexists(str(part)):
        part.unlink()
    _link(target, part)
    os.replace(str(part), str(place))


def _link(target: str, place: Path) -> None:
    try:
        os.symlink(target, str(place))
    except PermissionError as error:  # FAT and its like say EPERM
        raise DeviceError(
            "the file system of edgepack's folder has no symbolic links",
            where=str(place.parent),
            fix="give edgepack a folder on another file system: edgepack devices add NAME ADDRESS --root PATH",
            code="no-links",
        ) from error
