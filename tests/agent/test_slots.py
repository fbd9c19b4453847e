"""Slots, blobs and the transfer's device side, in files."""

import hashlib
import io
import os
import zlib

import pytest

from agent import disk, pruning, settings
from agent.contract.errors import DeviceError, IntegrityError, TransientDeviceError, UsageError
from agent.contract.transfer import CHUNK, COPY, DATA, END, INDEX, PACKED, Coming, frame, pack_index
from agent.receiving import Receiver
from agent.slots import Slots, current_digest
from agent.store import Store
from tests.agent.bundles import CONTENTS, manifest, write_bundle


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "root"))


def install(store, tmp_path, name):
    path = tmp_path / f"{name}.edgepack"
    digest = write_bundle(path, manifest(name=name))
    store.install(path, digest)
    return digest


def receive(store, data, frames, have=0):
    sha256 = hashlib.sha256(data).hexdigest()
    Receiver(store.blobs, io.BufferedReader(io.BytesIO(b"".join(frames)))).take(Coming(sha256, len(data), have))
    return store.blobs.path(sha256)


def test_a_change_is_one_rename_and_the_path_stays(store, tmp_path):
    one, two = (install(store, tmp_path, name) for name in ("one", "two"))
    slots = Slots(store)
    first = slots.change(slots.get("vision"), current=one)
    second = slots.change(first, current=two, previous=one)
    assert slots.get("vision") == second
    assert (slots.path("vision") / "manifest.json").read_bytes() == (store.get(two) / "manifest.json").read_bytes()
    assert current_digest(store.root, "vision") == two
    assert slots.held() == {two: ["vision current"], one: ["vision previous"]}


def test_a_cut_before_the_rename_leaves_the_old_state(store, tmp_path, monkeypatch):
    one, two = (install(store, tmp_path, name) for name in ("one", "two"))
    slots = Slots(store)
    first = slots.change(slots.get("vision"), current=one)

    def cut(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", cut)
    with pytest.raises(KeyboardInterrupt):
        slots.change(first, current=two)
    monkeypatch.undo()
    assert slots.get("vision") == first
    assert slots.change(first, current=two).current == two


@pytest.mark.parametrize("name", ["", "../x", ".hidden", "a/b", "a" * 65])
def test_a_slots_name_cannot_escape(store, name):
    with pytest.raises(UsageError):
        Slots(store).get(name)


def test_bundles_share_their_files(store, tmp_path):
    one, two = (install(store, tmp_path, name) for name in ("one", "two"))
    model = "model/model.onnx"
    assert (store.get(one) / model).samefile(store.get(two) / model)
    store.remove(one)
    assert (store.get(two) / model).read_bytes() == CONTENTS[model]


def test_prune_keeps_what_slots_hold_and_the_last_used(store, tmp_path):
    digests = [install(store, tmp_path, f"b{index}") for index in range(4)]
    slots = Slots(store)
    slots.change(slots.get("vision"), current=digests[0])
    done = pruning.prune(store, 1)
    assert done["removed"] == digests[1:3]
    assert set(store.order()) == {digests[0], digests[3]}
    with pytest.raises(DeviceError) as caught:
        pruning.remove(store, digests[0])
    assert caught.value.code == "in-use"


def test_prune_deletes_what_a_prune_that_was_cut_left(store, tmp_path):
    one = install(store, tmp_path, "one")
    gone = store.bundles / ".gone-02bb29d64b1423e7"
    (gone / "model").mkdir(parents=True)
    assert pruning.prune(store, 1)["removed"] == []
    assert [path.name for path in store.bundles.iterdir()] == [one[len("sha256:") :]]


def test_quota_reached(store):
    settings.save(store.root, settings.Settings(quota_bytes=1000))
    with pytest.raises(DeviceError) as caught:
        store.need_space(2000)
    assert caught.value.code == "quota"


def test_frames_become_a_blob(store):
    data = os.urandom(1 << 18) + bytes(1 << 18)
    half = 1 << 18
    frames = [frame(DATA, data[:half]), frame(PACKED, zlib.compress(data[half:])), frame(END, b"")]
    assert receive(store, data, frames).read_bytes() == data


def test_a_cut_transfer_goes_on_where_it_stopped(store):
    data = os.urandom(100_000)
    sha256 = hashlib.sha256(data).hexdigest()
    with pytest.raises(TransientDeviceError):
        receive(store, data, [frame(DATA, data[:40_000])])
    assert store.blobs.arrived(sha256, len(data)) == 40_000
    rest = [frame(DATA, data[40_000:]), frame(END, b"")]
    assert receive(store, data, rest, have=40_000).read_bytes() == data


def test_chunks_are_copied_from_another_file_and_checked(store):
    old = os.urandom(200_000)
    chunks = [(100_000, hashlib.sha256(old[at : at + 100_000]).digest()) for at in (0, 100_000)]
    blob = receive(store, old, [frame(DATA, old), frame(INDEX, pack_index(chunks)), frame(END, b"")])
    new = old[100_000:] + b"new"
    frames = [frame(COPY, CHUNK.pack(*chunks[1])), frame(DATA, b"new"), frame(END, b"")]
    assert receive(store, new, frames).read_bytes() == new
    blob.chmod(0o600)
    blob.write_bytes(bytes(200_000))
    with pytest.raises(TransientDeviceError) as caught:
        receive(store, old[100_000:] + b"other", frames)
    assert caught.value.code == "chunk-gone"


def test_two_agents_may_keep_the_index_of_one_file_at_once(store, monkeypatch):
    data = os.urandom(1000)
    sha256, raw = hashlib.sha256(data).hexdigest(), pack_index([(1000, hashlib.sha256(data).digest())])
    receive(store, data, [frame(DATA, data), frame(END, b"")])
    write, others = disk.write_file, []

    def slow(path, content):
        write(path, content)
        if not others:  # the other one comes in between, and is through first
            others.append(path)
            store.blobs.set_index(sha256, len(data), raw)

    monkeypatch.setattr(disk, "write_file", slow)
    store.blobs.set_index(sha256, len(data), raw)
    assert store.blobs.indexed() == 1
    assert [digest for digest, _ in store.blobs.chunks()] == [hashlib.sha256(data).digest()]
    assert list(store.blobs.incoming.iterdir()) == []


@pytest.mark.parametrize(
    "frames",
    [
        [frame(DATA, b"another")],
        [frame(DATA, b"wrong!"), frame(END, b"")],
        [frame(b"?", b""), frame(END, b"")],
        [frame(PACKED, zlib.compress(bytes(64 << 20))), frame(END, b"")],
        [frame(PACKED, b"no zlib"), frame(END, b"")],
    ],
    ids=["too_many_bytes", "other_bytes", "unknown_frame", "swelling", "broken_packing"],
)
def test_a_damaged_transfer_is_refused(store, frames):
    with pytest.raises(IntegrityError):
        receive(store, b"right!", frames)
    assert list(store.blobs.folder.iterdir()) == []
