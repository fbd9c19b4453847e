"""The device's store: receive, verify, stage, rename. Whatever is cut in the middle leaves the old state, whole.

ROOT/agent/agent-SHA.pyz   ROOT/incoming/      ROOT/blobs/SHA       ROOT/bundles/HEX/   ROOT/slots/NAME/current
ROOT/results/ID.json       ROOT/order.json     ROOT/settings.json   ROOT/lock
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Set

from agent import settings
from agent.blobs import PART, Blobs, claim, held, link
from agent.contract import archive, codec
from agent.contract.errors import DeviceError, EdgepackError, IntegrityError, TransientDeviceError, UsageError
from agent.contract.manifest import MANIFEST_NAME, Manifest, manifest_digest, parse_manifest
from agent.disk import disk_errors, no_space, write_atomic, write_file

_DIGEST = re.compile(r"^sha256:[0-9a-f]{64}\Z")
_JOB = re.compile(r"^[A-Za-z0-9-]{1,64}\Z")
_STALE_SECONDS = 86400.0
SPARE_BYTES = 8 << 20  # left free on the disk, so that results can still be written


class Store:
    """edgepack's folder on this device (mode 0700)."""

    def __init__(self, root: str) -> None:
        self.root = Path(os.path.expanduser(root))
        self.blobs = Blobs(self.root)
        with disk_errors(self.root):
            for folder in (self.root, self.incoming, self.blobs.folder, self.bundles, self.results):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            told = self.root.stat()
            if told.st_mode & 0o077 and told.st_uid == os.getuid():  # made by somebody else, or by hand
                self.root.chmod(0o700)

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
            self.sweep(package)
            folder = self.folder(digest)
            with archive.BundleReader(package) as reader:
                if reader.digest != digest:
                    raise IntegrityError("the bundle that arrived is another one", where=reader.digest, expected=digest)
                if folder.is_dir():
                    return archive.verify_folder(folder, digest)
                self.need_space(sum(entry.size for entry in reader.manifest.files.values()))
                with self._staging(folder) as staged:
                    reader.extract(staged)
                    for name, entry in reader.manifest.files.items():
                        self.blobs.adopt(_inside(staged, name), entry.sha256)
                self.touch(digest)
                return reader.manifest

    def stage(self, raw: bytes, arrived: Set[str]) -> str:
        """Makes the bundle of this manifest from blobs; its digest. Those in `arrived` have been checked just now, the others
        are read again; a folder that is there already gets the files that it lacks. Raises TransientDeviceError, code
        blobs-missing, when a blob is not here or not whole: pushed again, it is sent.
        """
        digest, manifest = manifest_digest(raw), parse_manifest(raw)
        with self.locked():
            self.sweep()
            for name, entry in manifest.files.items():
                archive.check_name(name, digest)
                if not self.blobs.has(entry.sha256, entry.size) or not (
                    entry.sha256 in arrived or self.blobs.sound(entry.sha256)
                ):
                    what = "%s is not on the device any more" % name
                    raise TransientDeviceError(what, where=digest, fix="push again", code="blobs-missing")
            folder = self.folder(digest)
            if folder.is_dir():
                self._mend(folder, raw, manifest)
            else:
                with self._staging(folder) as staged:
                    staged.mkdir()
                    write_file(staged / MANIFEST_NAME, raw)
                    for name, entry in manifest.files.items():
                        _inside(staged, name).parent.mkdir(parents=True, exist_ok=True)
                        link(self.blobs.path(entry.sha256), _inside(staged, name))
                    for parent in sorted({staged, *(path.parent for path in staged.rglob("*"))}):
                        archive.sync_folder(parent)
            self.touch(digest)
        return digest

    @contextlib.contextmanager
    def _staging(self, folder: Path) -> Iterator[Path]:
        """A folder to fill, which then becomes `folder` in one rename; on an error nothing is left of it."""
        staged = self.bundles / (".part-%s" % folder.name[:16])
        try:
            with disk_errors(staged):
                yield staged
                os.replace(str(staged), str(folder))
                archive.sync_folder(self.bundles)
        finally:
            shutil.rmtree(str(staged), ignore_errors=True)

    def _mend(self, folder: Path, raw: bytes, manifest: Manifest) -> None:
        """Replaces the files of a bundle that are not their blobs, one by one, each by rename."""
        with disk_errors(folder):
            if not _same(folder / MANIFEST_NAME, raw):
                write_atomic(folder / MANIFEST_NAME, raw)
            for name, entry in manifest.files.items():
                place, blob = _inside(folder, name), self.blobs.path(entry.sha256)
                if place.is_file() and os.path.samefile(str(place), str(blob)):
                    continue
                place.parent.mkdir(parents=True, exist_ok=True)
                part = place.with_name("." + place.name + PART)
                with contextlib.suppress(FileNotFoundError):
                    part.unlink()
                link(blob, part)
                os.replace(str(part), str(place))
                archive.sync_folder(place.parent)

    def damaged(self, digest: str) -> List[str]:
        """Reads all of the bundle; the sha256 of each file that is not what it must be. A blob that is not is deleted."""
        folder, bad = self.get(digest), []
        manifest = archive.read_manifest_file(folder)
        for name, entry in manifest.files.items():
            whole = self.blobs.has(entry.sha256, entry.size) and self.blobs.sound(entry.sha256)
            place = _inside(folder, name)
            if not whole or not place.is_file() or not os.path.samefile(str(place), str(self.blobs.path(entry.sha256))):
                bad.append(entry.sha256)
        return bad

    def remove(self, digest: str) -> int:
        """Deletes the bundle with the files that no other has, and returns the bytes freed. The lock must be held.

        It is renamed first, so a cut leaves nothing half there.
        """
        folder = self.get(digest)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.stat().st_nlink == 1)
        doomed = self.bundles / (".gone-%s" % folder.name[:16])
        self.sweep()
        with disk_errors(folder):
            os.replace(str(folder), str(doomed))
            archive.sync_folder(self.bundles)
            shutil.rmtree(str(doomed))
            return size + self.collect()

    def collect(self) -> int:
        """Deletes the blobs that belong to no bundle; the bytes freed. The lock must be held."""
        keep: Set[str] = set()
        for folder in self.folders():
            with contextlib.suppress(EdgepackError):  # what a bundle that cannot be read refers to is in its own folder
                keep.update(entry.sha256 for entry in archive.read_manifest_file(folder).files.values())
        return self.blobs.sweep(keep)

    def order(self) -> List[str]:
        """The bundles that are here, those used longest ago first. No clock decides: a board without a battery has none."""
        try:
            known = json.loads((self.root / "order.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = []  # only the order is lost
        here = ["sha256:" + folder.name for folder in self.folders()]
        listed = [one for one in known if one in here] if isinstance(known, list) else []
        return [one for one in here if one not in listed] + listed

    def touch(self, digest: str) -> None:
        """This bundle is the last used. The lock must be held."""
        order = [one for one in self.order() if one != digest] + [digest]
        write_atomic(self.root / "order.json", json.dumps(order).encode("utf-8"))

    def folders(self) -> List[Path]:
        """The bundles' folders."""
        return sorted(folder for folder in self.bundles.iterdir() if not folder.name.startswith("."))

    def list(self) -> List[Dict[str, Any]]:
        """Every bundle: digest, name, target, size; one that cannot be read is listed with its error."""
        rows: List[Dict[str, Any]] = []
        for folder in self.folders():
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

    @contextlib.contextmanager
    def working(self, job: str) -> Iterator[None]:
        """While this lasts a host that comes back learns that waiting for the job's result is some use. A process that dies
        leaves a file without a lock.
        """
        with disk_errors(self.root):
            mine = self._marker(job)
            mine.parent.mkdir(mode=0o700, exist_ok=True)
            for path in mine.parent.iterdir():
                if not held(path):
                    with contextlib.suppress(FileNotFoundError):
                        path.unlink()
            file = claim(mine)
        try:
            yield
        finally:
            with contextlib.suppress(FileNotFoundError):
                mine.unlink()
            if file is not None:
                file.close()

    def at_work(self, job: str) -> bool:
        """Whether a process works on the job now."""
        return held(self._marker(job))

    def keep_result(self, job: str, document: Any) -> Path:
        """Writes a result before it is sent; `forget_result` deletes it when the host has it."""
        path = self._result(job)
        write_atomic(path, json.dumps(codec.encode(document), allow_nan=False).encode("utf-8"))
        return path

    def kept_results(self) -> List[str]:
        """The jobs whose results the host has not confirmed."""
        return sorted(path.stem for path in self.results.glob("*.json"))

    def read_result(self, job: str) -> Any:
        """A kept result. Raises DeviceError when there is none: code no-result when it may still come, job-gone when not."""
        try:
            return json.loads(self._result(job).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            code = "no-result" if self.at_work(job) else "job-gone"
            raise DeviceError("no result is kept for job %s" % job, code=code) from error

    def forget_result(self, job: str) -> None:
        """The host has it."""
        with contextlib.suppress(FileNotFoundError):
            self._result(job).unlink()

    def _result(self, job: str) -> Path:
        return self.results / (_job(job) + ".json")

    def _marker(self, job: str) -> Path:
        return self.root / "working" / _job(job)

    def sweep(self, mine: Optional[Path] = None) -> None:
        """Deletes what an agent that was killed left; the lock, which must be held, says that nobody is at work on it now.
        `mine` is kept however old the clock makes it: boards without a battery wake up years ago.
        """
        for folder in [*self.bundles.glob(".part-*"), *self.bundles.glob(".gone-*")]:
            shutil.rmtree(str(folder), ignore_errors=True)
        for path in self.incoming.iterdir():
            with contextlib.suppress(FileNotFoundError):  # its own agent deletes it when it has taken it in
                if path != mine and path.stat().st_mtime < time.time() - _STALE_SECONDS and not held(path):
                    path.unlink()

    def need_space(self, size: int) -> None:
        """Raises DeviceError unless `size` bytes fit on the disk, and into the quota."""
        free = shutil.disk_usage(str(self.root)).free
        if free < size + SPARE_BYTES:
            raise no_space(self.root, size + SPARE_BYTES, free)
        quota = settings.load(self.root).quota_bytes
        if quota is not None and self.used() + size > quota:
            raise DeviceError(
                "the quota of edgepack's folder would be passed: %.1f MB needed, %.1f of %.1f MB used"
                % (size / 1e6, self.used() / 1e6, quota / 1e6),
                where=str(self.root),
                fix="edgepack devices prune DEVICE --keep N, or a larger one: edgepack devices quota DEVICE SIZE",
                code="quota",
            )

    def used(self) -> int:
        """The bytes in edgepack's folder; a file with several names counts once."""
        seen: Dict[Any, int] = {}
        for folder, _, names in os.walk(str(self.root)):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    told = os.lstat(os.path.join(folder, name))
                    seen[told.st_dev, told.st_ino] = told.st_size
        return sum(seen.values())


def _job(job: str) -> str:
    if not _JOB.match(job):
        raise UsageError("not a job id: %.100r" % job, expected="letters, digits and -")
    return job


def _inside(folder: Path, name: str) -> Path:
    return folder.joinpath(*name.split("/"))


def _same(path: Path, raw: bytes) -> bool:
    try:
        return path.read_bytes() == raw
    except OSError:
        return False
