"""The device's store: receive, verify, stage, rename. Whatever is cut in the middle leaves the old state, whole.

ROOT/agent/agent-SHA.pyz   ROOT/incoming/   ROOT/bundles/HEX/   ROOT/results/ID.json   ROOT/lock
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

from agent.contract import archive, codec
from agent.contract.errors import DeviceError, IntegrityError, UsageError
from agent.contract.manifest import Manifest

_DIGEST = re.compile(r"^sha256:[0-9a-f]{64}\Z")
_JOB = re.compile(r"^[A-Za-z0-9-]{1,64}\Z")
_STALE_SECONDS = 86400.0
SPARE_BYTES = 8 << 20  # left free on the disk, so that results can still be written


class Store:
    """edgepack's folder on this device (mode 0700)."""

    def __init__(self, root: str) -> None:
        self.root = Path(os.path.expanduser(root))
        with disk_errors(self.root):
            for folder in (self.root, self.incoming, self.bundles, self.results):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def incoming(self) -> Path:
        """Files on their way in."""
        return self.root / "incoming"

    @property
    def bundles(self) -> Path:
        """Unpacked bundles by digest."""
        return self.root / "bundles"

    @property
    def results(self) -> Path:
        """Results that the host has not yet confirmed."""
        return self.root / "results"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One change at a time; another one waits."""
        with disk_errors(self.root), open(str(self.root / "lock"), "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def folder(self, digest: str) -> Path:
        """Where the bundle lies or would lie. Raises UsageError for what is no digest."""
        if not _DIGEST.match(digest):
            raise UsageError("not a bundle digest: %.100r" % digest, expected="sha256: and 64 hex digits")
        return self.bundles / digest[len("sha256:") :]

    def has(self, digest: str) -> bool:
        """Whether the bundle is here. The folder appears by rename, so it is whole or not there."""
        return self.folder(digest).is_dir()

    def get(self, digest: str) -> Path:
        """The bundle's folder. Raises DeviceError when it is not here."""
        folder = self.folder(digest)
        if not folder.is_dir():
            raise DeviceError("the bundle is not on this device", where=digest, fix="push it first", code="no-bundle")
        return folder

    def install(self, package: Path, digest: str) -> Manifest:
        """Verifies the bundle file and unpacks it; nothing is visible before all of it is right and on the disk."""
        with self.locked():
            self._sweep(package)
            folder = self.folder(digest)
            with archive.BundleReader(package) as reader:
                if reader.digest != digest:
                    raise IntegrityError("the bundle that arrived is another one", where=reader.digest, expected=digest)
                if folder.is_dir():
                    return archive.verify_folder(folder, digest)
                self._need_space(sum(entry.size for entry in reader.manifest.files.values()))
                staged = self.bundles / (".part-%s" % folder.name[:16])
                try:
                    with disk_errors(staged):
                        reader.extract(staged)
                        os.replace(str(staged), str(folder))
                        archive.sync_folder(self.bundles)
                finally:
                    shutil.rmtree(str(staged), ignore_errors=True)
                return reader.manifest

    def remove(self, digest: str) -> int:
        """Deletes the bundle and returns its size in bytes. It is renamed first, so a cut leaves nothing half there."""
        with self.locked():
            folder = self.get(digest)
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            doomed = self.bundles / (".gone-%s" % folder.name[:16])
            self._sweep()
            with disk_errors(folder):
                os.replace(str(folder), str(doomed))
                archive.sync_folder(self.bundles)
                shutil.rmtree(str(doomed))
            return size

    def list(self) -> List[Dict[str, Any]]:
        """Every bundle: digest, name, target, size; one that cannot be read is listed with its error."""
        rows: List[Dict[str, Any]] = []
        for folder in sorted(self.bundles.iterdir()):
            if folder.name.startswith("."):
                continue
            row: Dict[str, Any] = {"digest": "sha256:" + folder.name}
            try:
                manifest = archive.read_manifest_file(folder)
            except (IntegrityError, UsageError) as error:
                row["error"] = str(error)
            else:
                size = sum(entry.size for entry in manifest.files.values())
                row.update(name=manifest.name, target=manifest.target, runtime=manifest.runtime.name, size_bytes=size)
            rows.append(row)
        return rows

    def keep_result(self, job: str, document: Any) -> Path:
        """Writes a result before it is sent; `forget_result` deletes it when the host has it."""
        path = self._result(job)
        part = path.with_suffix(".part")
        with disk_errors(path):
            try:
                with open(str(part), "w", encoding="utf-8") as file:
                    json.dump(codec.encode(document), file, allow_nan=False)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(str(part), str(path))
            finally:
                with contextlib.suppress(FileNotFoundError):
                    part.unlink()
            archive.sync_folder(path.parent)
        return path

    def kept_results(self) -> List[str]:
        """The jobs whose results the host has not confirmed."""
        return sorted(path.stem for path in self.results.glob("*.json"))

    def read_result(self, job: str) -> Any:
        """A kept result. Raises DeviceError when there is none."""
        try:
            return json.loads(self._result(job).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise DeviceError("no result is kept for job %s" % job, code="no-result") from error

    def forget_result(self, job: str) -> None:
        """The host has it."""
        with contextlib.suppress(FileNotFoundError):
            self._result(job).unlink()

    def _result(self, job: str) -> Path:
        if not _JOB.match(job):
            raise UsageError("not a job id: %.100r" % job, expected="letters, digits and -")
        return self.results / (job + ".json")

    def _sweep(self, mine: Optional[Path] = None) -> None:
        """Deletes what an agent that was killed left; the lock says that nobody is at work on it now. `mine` is kept however
        old the clock makes it: boards without a battery wake up years ago.
        """
        for folder in [*self.bundles.glob(".part-*"), *self.bundles.glob(".gone-*")]:
            shutil.rmtree(str(folder), ignore_errors=True)
        for path in self.incoming.iterdir():
            with contextlib.suppress(FileNotFoundError):  # its own agent deletes it when it has taken it in
                if path != mine and path.stat().st_mtime < time.time() - _STALE_SECONDS:
                    path.unlink()

    def _need_space(self, size: int) -> None:
        free = shutil.disk_usage(str(self.root)).free
        if free < size + SPARE_BYTES:
            raise no_space(self.root, size + SPARE_BYTES, free)


def no_space(where: Path, needed: int, free: int) -> DeviceError:
    """The disk is too full."""
    return DeviceError(
        "no space on the device: %.1f MB needed, %.1f MB free" % (needed / 1e6, free / 1e6),
        where=str(where),
        fix="free space there, or remove bundles: edgepack devices list-bundles DEVICE, edgepack devices remove-bundle",
        code="no-space",
    )


@contextlib.contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Turns the disk's refusals into DeviceErrors that say what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DeviceError(
                "no space left on the device", where=str(where), fix="free space there", code="no-space"
            ) from error
        if error.errno == errno.EROFS:
            raise DeviceError(
                "the device's file system is read-only",
                where=str(where),
                fix="remount it writable, or give edgepack another folder: edgepack devices add NAME ADDRESS --root PATH",
                code="read-only",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise DeviceError(
                "no permission to write on the device",
                where=str(where),
                fix="make the folder this user's, or give another: edgepack devices add NAME ADDRESS --root PATH",
                code="permission",
            ) from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ELOOP):
            raise DeviceError(
                "edgepack's folder on the device cannot be one: %s" % error,
                where=str(where),
                fix="move what is in the way, or give another folder: edgepack devices add NAME ADDRESS --root PATH",
                code="bad-root",
            ) from error
        raise
