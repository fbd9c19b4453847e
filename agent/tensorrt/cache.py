"""Built engines, kept by everything they depend on: another JetPack, GPU or recipe finds nothing and builds anew.

ROOT/cache/tensorrt/<digest of the ONNX file>/<key>.plan and <key>.json (sha256, size, how it was built)
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Dict, Optional

from agent.contract.archive import sync_folder
from agent.contract.errors import DeviceError
from agent.disk import disk_errors

_CHUNK = 1 << 20


def key(recipe: Dict[str, Any], environment: Dict[str, Any]) -> str:
    """The name for an engine: a hash over the canonical recipe and environment (versions, GPU, L4T)."""
    text = json.dumps([recipe, environment], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:32]


def folder(root: str, onnx: Path) -> Path:
    """The folder of one model's engines."""
    return Path(root) / "tensorrt" / file_digest(onnx)[:32]


def file_digest(path: Path) -> str:
    """The hex sha256 of a file, with the external data beside it counted by the bundle's own check."""
    total = hashlib.sha256()
    with open(str(path), "rb") as file:
        while True:
            chunk = file.read(_CHUNK)
            if not chunk:
                return total.hexdigest()
            total.update(chunk)


def find(place: Path, name: str) -> Optional[Dict[str, Any]]:
    """The record of a whole engine (with its `path`), or None; one whose bytes have changed is deleted."""
    record = place / (name + ".json")
    plan = place / (name + ".plan")
    if not (record.is_file() and plan.is_file()):
        return None
    try:
        told: Dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        whole = told["sha256"] == file_digest(plan)
    except (ValueError, KeyError, OSError):
        whole = False
    if not whole:
        drop(place, name)
        return None
    return {**told, "path": str(plan)}


def keep(place: Path, name: str, plan: bytes, facts: Dict[str, Any]) -> Dict[str, Any]:
    """Writes an engine: a temporary file, synced, renamed; the record last. Raises DeviceError when the disk is full."""
    with disk_errors(place):
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        record = {**facts, "sha256": hashlib.sha256(plan).hexdigest(), "size": len(plan)}
        _write(place / (name + ".plan"), plan)
        _write(place / (name + ".json"), json.dumps(record, sort_keys=True).encode("utf-8"))
        for other in place.iterdir():
            # Engines of this model for the JetPack before, and what a killed build left.
            if other.name not in (name + ".plan", name + ".json"):
                other.unlink()
        sync_folder(place)
    return {**record, "path": str(place / (name + ".plan"))}


def drop(place: Path, name: str) -> None:
    """Deletes an engine; the record first, so that a half-deleted one is never found."""
    for ending in (".json", ".plan"):
        path = place / (name + ending)
        if path.exists():
            path.unlink()


def read(path: str, sha256: str) -> bytes:
    """The engine's bytes. Raises DeviceError (code engine-stale) when they are not those that were written."""
    with open(path, "rb") as file:
        plan = file.read()
    if hashlib.sha256(plan).hexdigest() != sha256:
        raise DeviceError("the cached engine has changed on the disk", where=path, code="engine-stale")
    return plan


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(str(temporary), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(str(temporary), str(path))
    except BaseException:
        if temporary.exists():
            temporary.unlink()
        raise
