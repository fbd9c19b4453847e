"""A disk that is full at each stage of a delivery: the old bundle goes on, and with room again the next try is done."""

import contextlib
import hashlib
import io
import os
import subprocess
from pathlib import Path

import pytest

from agent import activation, pruning
from agent.contract import archive
from agent.contract.errors import DeviceError
from agent.contract.manifest import manifest_digest
from agent.contract.transfer import DATA, END, Coming, frame
from agent.disk import disk_errors
from agent.receiving import Receiver
from agent.slots import Slots
from agent.store import Store
from tests.agent.bundles import CONTENTS, manifest

PAGE = 4096
STAGES = ("receive", "stage", "staged in the slot", "activate")


class Quiet:
    def progress(self, _):
        pass


@pytest.fixture
def disk(tmp_path):
    """A disk of 1 MB that can be filled."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"this machine mounts no tmpfs: {done.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def fill(disk, pages):
    """A file that leaves so many pages free."""
    told = os.statvfs(disk)
    (disk / "full").write_bytes(bytes(max(0, told.f_bfree - pages) * PAGE))


def made(name):
    contents = {**CONTENTS, "extra/large.bin": name.encode() * 4000}
    return manifest(contents, name=name), contents


def deliver(store, bundle, begins=lambda _: None):
    """All that the device does of a push with --slot, but for running it; `begins` is told of each stage."""
    document, contents = bundle
    raw = document.to_bytes()
    digest = manifest_digest(raw)
    begins("receive")
    for data in contents.values():
        sha256 = hashlib.sha256(data).hexdigest()
        if not store.blobs.has(sha256, len(data)):
            stream = io.BufferedReader(io.BytesIO(frame(DATA, data) + frame(END, b"")))
            with disk_errors(store.root):
                Receiver(store.blobs, stream).take(Coming(sha256, len(data), 0))
    begins("stage")
    store.stage(raw, set())
    slots = Slots(store)
    with store.locked():
        begins("staged in the slot")
        slot = slots.change(slots.get("vision"), staged=digest)
        begins("activate")
        activation.switch(store, slot, digest, Quiet(), previous=slot.current)
    return digest


def current(store):
    """What runs: it must be whole."""
    slot = Slots(store).get("vision")
    place = Slots(store).path("vision")
    archive.verify_folder(place.resolve(), slot.current)
    assert place.resolve() == store.get(slot.current).resolve()
    return slot.current


@pytest.mark.parametrize("stage", STAGES)
def test_disk_full_at_each_stage(stage, disk, monkeypatch):
    monkeypatch.setattr(activation, "CHECKS", activation.CHECKS[:2])  # these bundles do not run
    store = Store(str(disk / "edgepack"))
    old = deliver(store, made("old"))
    failed = 0
    for pages in range(100):
        new = made(f"new{pages}")
        digest = manifest_digest(new[0].to_bytes())
        error = None
        try:
            # Others fill the disk just before that stage.
            deliver(store, new, lambda name, free=pages: fill(disk, free) if name == stage else None)
        except DeviceError as caught:
            error = caught
        if error is None:
            break
        failed += 1
        assert error.code == "no-space"
        assert current(store) in {old, digest}
        (disk / "full").unlink()
        assert deliver(store, new) == current(store)
        slots = Slots(store)
        with store.locked():
            slots.change(slots.get("vision"), current=old, previous=None, staged=None)
        pruning.prune(store, 0)
        assert [folder.name for folder in store.folders()] == [old[len("sha256:") :]]
    assert current(store) == digest
    assert failed > 0
    assert not list(store.incoming.iterdir())


def test_a_full_disk_can_be_freed(disk, monkeypatch):
    monkeypatch.setattr(activation, "CHECKS", activation.CHECKS[:2])
    store = Store(str(disk / "edgepack"))
    for name in ("one", "two", "three"):
        deliver(store, made(name))
    fill(disk, 0)
    with contextlib.suppress(FileNotFoundError), pytest.raises(DeviceError) as caught:
        deliver(store, made("four"))
    assert caught.value.code == "no-space"
    assert pruning.prune(store, 0)["freed_bytes"] > 0
    assert current(store) == manifest_digest(made("three")[0].to_bytes())


def test_read_only(disk, monkeypatch):
    monkeypatch.setattr(activation, "CHECKS", activation.CHECKS[:2])
    store = Store(str(disk / "edgepack"))
    first, second = (deliver(store, made(name)) for name in ("one", "two"))
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    slot = Slots(store).get("vision")
    changes = {
        "activate": lambda: activation.switch(store, slot, first, Quiet(), previous=second),
        "push": lambda: deliver(store, made("three")),
        "remove": lambda: pruning.remove(store, first),
        "prune": lambda: pruning.prune(store, 0),
    }
    for change in changes.values():
        with pytest.raises(DeviceError) as caught:
            change()
        assert caught.value.code == "read-only"
        assert current(Store(str(disk / "edgepack"))) == second
    assert Path(store.root / "slots" / "vision" / "current").is_dir()
