"""Deletes bundles, never one that a slot holds, with what runners built from them."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any, Dict, List

from agent.contract import archive
from agent.contract.errors import DeviceError, EdgepackError
from agent.disk import disk_errors
from agent.slots import Slots
from agent.store import Store


def remove(store: Store, digest: str) -> int:
    """Deletes one bundle; the bytes freed. Raises DeviceError, code in-use, for one that a slot holds."""
    with store.locked():
        holders = Slots(store).held().get(digest)
        if holders:
            raise DeviceError(
                "the bundle is in use: %s" % ", ".join(holders),
                where=digest,
                fix="activate another one first: edgepack activate DEVICE --slot %s" % holders[0].split()[0],
                code="in-use",
            )
        return _remove(store, digest)


def prune(store: Store, keep: int) -> Dict[str, Any]:
    """Deletes all bundles but those that slots hold and the `keep` that were used last besides them; and what transfers that
    were given up have left.
    """
    with store.locked():
        held = Slots(store).held()
        store.sweep()  # also where nothing else is to be deleted: a cut may have left half of a bundle
        free = [digest for digest in store.order() if digest not in held]
        doomed = free[: max(0, len(free) - keep)]
        freed = sum(_remove(store, digest) for digest in doomed)
        with disk_errors(store.root):
            freed += store.collect() + store.blobs.drop_parts()
        return {"removed": doomed, "kept": [one for one in store.order() if one not in doomed], "freed_bytes": freed}


def _remove(store: Store, digest: str) -> int:
    built = _built(store, digest)
    freed = store.remove(digest)
    for folder in built:
        freed += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        with disk_errors(folder):
            shutil.rmtree(str(folder))
    return freed


def _built(store: Store, digest: str) -> List[Path]:
    """The folders of engines that runners built and keep under the model file's digest."""
    found: List[Path] = []
    with contextlib.suppress(EdgepackError):  # a bundle that cannot be read is removed all the same
        manifest = archive.read_manifest_file(store.get(digest))
        found = sorted((store.root / "cache").glob("*/" + manifest.files[manifest.model].sha256[:32]))
    return found
