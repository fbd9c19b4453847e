"""The store: whole or not there, whatever happens in the middle, and however many ask at once."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import time

import pytest

from agent.contract.errors import DeviceError, IntegrityError, UsageError
from agent.store import SPARE_BYTES, Store, disk_errors
from tests.agent.bundles import CONTENTS, manifest, write_bundle

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system needs root")
MISSING = "sha256:" + "0" * 64


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "device"))


@pytest.fixture
def package(tmp_path):
    path = tmp_path / "small.edgepack"
    return path, write_bundle(path)


@pytest.fixture
def mounted(tmp_path):
    """`mounted(options)` gives a small file system of its own."""
    places = []

    def mount(options):
        place = tmp_path / f"disk{len(places)}"
        place.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"this machine mounts no tmpfs: {done.stderr.decode().strip()}")
        places.append(place)
        return place

    yield mount
    for place in places:
        subprocess.run(["umount", place], check=True)


def leftovers(store):
    return [path.name for path in store.bundles.iterdir() if path.name.startswith(".")]


def test_installed_bundle_is_there_and_whole(store, package):
    path, digest = package
    assert not store.has(digest)
    assert store.install(path, digest) == manifest()
    assert store.has(digest)
    folder = store.get(digest)
    assert {name: (folder / name).read_bytes() for name in CONTENTS} == CONTENTS
    (row,) = store.list()
    assert row == {
        "digest": digest,
        "name": "small",
        "target": "linux-x86-64",
        "runtime": "onnxruntime",
        "size_bytes": sum(len(data) for data in CONTENTS.values()),
    }
    assert leftovers(store) == []


def test_folder_is_this_user_s_alone(store):
    assert stat.S_IMODE(store.root.stat().st_mode) == 0o700


def test_folder_that_others_could_look_into_is_closed(tmp_path):
    root = tmp_path / "edgepack"
    root.mkdir(mode=0o755)
    root.chmod(0o755)
    assert stat.S_IMODE(Store(str(root)).root.stat().st_mode) == 0o700


def test_installing_again_changes_nothing(store, package):
    path, digest = package
    store.install(path, digest)
    before = store.get(digest).stat()
    store.install(path, digest)
    after = store.get(digest).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_installing_again_tells_that_the_installed_one_has_changed(store, package):
    path, digest = package
    store.install(path, digest)
    (store.get(digest) / "model/model.onnx").write_bytes(b"rotten")
    with pytest.raises(IntegrityError, match="has changed"):
        store.install(path, digest)


def test_bundle_that_is_another_one(store, package):
    with pytest.raises(IntegrityError, match="another one"):
        store.install(package[0], MISSING)
    assert store.list() == []


def test_broken_bundle_leaves_nothing(store, package):
    path, digest = package
    path.write_bytes(path.read_bytes().replace(b"not really", b"not at all"))
    with pytest.raises(IntegrityError):
        store.install(path, digest)
    assert store.list() == []
    assert leftovers(store) == []


def test_what_a_power_cut_left_is_replaced(store, package):
    path, digest = package
    part = store.bundles / f".part-{digest[7:23]}"
    (part / "model").mkdir(parents=True)
    (part / "model/model.onnx").write_bytes(b"half")
    assert store.list() == []
    store.install(path, digest)
    assert store.has(digest)
    assert leftovers(store) == []


def test_removed_bundle_is_gone_and_its_size_told(store, package):
    path, digest = package
    store.install(path, digest)
    assert store.remove(digest) > sum(len(data) for data in CONTENTS.values())
    assert not store.has(digest)
    assert list(store.bundles.iterdir()) == []
    with pytest.raises(DeviceError, match="not on this device"):
        store.remove(digest)


@pytest.mark.parametrize(
    "digest", ["", "sha256:", "sha256:../../x", "md5:" + "0" * 64, MISSING + "\n", MISSING.upper()]
)
def test_what_is_no_digest_names_no_folder(store, digest):
    with pytest.raises(UsageError, match="not a bundle digest"):
        store.has(digest)


def test_bundle_that_is_not_here(store):
    with pytest.raises(DeviceError, match="not on this device") as caught:
        store.get(MISSING)
    assert caught.value.fix == "push it first"


def test_unreadable_bundle_is_listed_with_its_error(store, package):
    path, digest = package
    store.install(path, digest)
    (store.get(digest) / "manifest.json").write_text("{", encoding="utf-8")
    (row,) = store.list()
    assert row["digest"] == digest
    assert "not a JSON document" in row["error"]


_INSTALL = """
import sys
from pathlib import Path
from agent.store import Store
print("ready", flush=True)
sys.stdin.readline()
Store(sys.argv[1]).install(Path(sys.argv[2]), sys.argv[3])
"""


def installer(store, path, digest):
    command = [sys.executable, "-c", _INSTALL, str(store.root), str(path), digest]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "ready\n"
    return child


def test_several_at_once(store, tmp_path):
    contents = {**CONTENTS, "model/model.onnx": os.urandom(2 << 20)}
    path = tmp_path / "large.edgepack"
    digest = write_bundle(path, contents=contents)
    children = [installer(store, path, digest) for _ in range(4)]
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        assert child.communicate(timeout=60)[1] == ""
        assert child.returncode == 0
    assert (store.get(digest) / "model/model.onnx").read_bytes() == contents["model/model.onnx"]
    assert leftovers(store) == []


def test_killed_in_the_middle_leaves_the_old_state_and_the_next_one_succeeds(store, tmp_path):
    contents = {**CONTENTS, "model/model.onnx": os.urandom(24 << 20)}
    path = tmp_path / "large.edgepack"
    digest = write_bundle(path, contents=contents)
    child = installer(store, path, digest)
    child.stdin.write("go\n")
    child.stdin.flush()
    while child.poll() is None and not leftovers(store):
        time.sleep(0.001)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    if store.has(digest):
        pytest.skip("this machine was too quick to be caught in the middle")
    assert store.list() == []
    store.install(path, digest)
    assert store.has(digest)
    assert leftovers(store) == []


@ROOT_ONLY
def test_no_space(mounted, tmp_path):
    place = mounted("size=2m")
    path = tmp_path / "large.edgepack"
    digest = write_bundle(path, contents={**CONTENTS, "model/model.onnx": bytes(4 << 20)})
    store = Store(str(place / "edgepack"))
    with pytest.raises(DeviceError, match="no space on the device") as caught:
        store.install(path, digest)
    assert caught.value.code == "no-space"
    assert caught.value.fix
    assert store.list() == []
    assert leftovers(store) == []


@ROOT_ONLY
def test_space_that_runs_out_in_the_middle(mounted, tmp_path, monkeypatch):
    place = mounted("size=2m")
    path = tmp_path / "large.edgepack"
    digest = write_bundle(path, contents={**CONTENTS, "model/model.onnx": bytes(4 << 20)})
    store = Store(str(place / "edgepack"))
    # Another program takes the space after the check: the same as a check that sees too much.
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1 << 40, 0, 1 << 40))
    with pytest.raises(DeviceError, match="no space left") as caught:
        store.install(path, digest)
    assert caught.value.code == "no-space"
    assert store.list() == []
    assert leftovers(store) == []


@ROOT_ONLY
def test_result_that_does_not_fit_is_told(mounted):
    store = Store(str(mounted("size=1m") / "edgepack"))
    with pytest.raises(DeviceError, match="no space left"):
        store.keep_result("job", {"samples": "x" * (2 << 20)})
    assert store.kept_results() == []


@ROOT_ONLY
def test_read_only_device(mounted, package):
    place = mounted("size=4m")
    path, digest = package
    root = place / "edgepack"
    Store(str(root))
    subprocess.run(["mount", "-o", "remount,ro", place], check=True)
    with pytest.raises(DeviceError, match="read-only") as caught:
        Store(str(root)).install(path, digest)
    assert caught.value.code == "read-only"
    with pytest.raises(DeviceError, match="read-only"):
        Store(str(place / "other"))


def test_folder_that_may_not_be_written(tmp_path):
    if os.geteuid() == 0:
        with pytest.raises(DeviceError, match="no permission") as caught, disk_errors(tmp_path):
            raise PermissionError(13, "Permission denied")
    else:
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(DeviceError, match="no permission") as caught:
            Store(str(tmp_path / "closed" / "edgepack"))
    assert caught.value.code == "permission"
    assert "--root" in caught.value.fix


def test_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "edgepack").write_text("", encoding="utf-8")
    with pytest.raises(DeviceError, match="cannot be one"):
        Store(str(tmp_path / "edgepack"))


def test_space_is_left_for_results(store, package, monkeypatch):
    path, digest = package
    free = SPARE_BYTES + sum(len(data) for data in CONTENTS.values()) - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1 << 30, 0, free))
    with pytest.raises(DeviceError, match="no space on the device"):
        store.install(path, digest)


def test_results_are_kept_until_forgotten(store):
    store.keep_result("job-1", {"n": 1})
    store.keep_result("job-2", {"n": 2})
    assert store.kept_results() == ["job-1", "job-2"]
    assert store.read_result("job-2") == {"n": 2}
    store.forget_result("job-1")
    store.forget_result("job-1")
    assert store.kept_results() == ["job-2"]
    with pytest.raises(DeviceError, match="no result is kept"):
        store.read_result("job-1")


@pytest.mark.parametrize("job", ["", "../x", "a/b", "a.json", "x" * 65, "a\n"])
def test_job_id_that_is_no_file_name(store, job):
    with pytest.raises(UsageError, match="not a job id"):
        store.keep_result(job, {})


def test_result_with_a_number_that_json_does_not_have_leaves_nothing(store):
    with pytest.raises(ValueError, match="JSON compliant"):
        store.keep_result("job", {"n": float("nan")})
    assert store.kept_results() == []


def test_home_is_expanded_on_the_device(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Store("~/.edgepack").root == tmp_path / ".edgepack"


def test_whether_waiting_for_a_job_is_any_use(store):
    with pytest.raises(DeviceError) as caught:
        store.read_result("job-1")
    assert caught.value.code == "job-gone"
    with store.working("job-1"):
        assert store.at_work("job-1")
        with pytest.raises(DeviceError) as caught:
            store.read_result("job-1")
        assert caught.value.code == "no-result"
    assert not store.at_work("job-1")
    (store.root / "working" / "dead").touch()  # of an agent that was killed
    assert not store.at_work("dead")
    with store.working("job-2"):
        assert [path.name for path in (store.root / "working").iterdir()] == ["job-2"]
    with pytest.raises(UsageError), store.working("../job"):
        pass
