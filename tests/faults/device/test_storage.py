"""Disks that are full or closed, and a clock that is wrong by years."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.device.road import PACKAGES, half_written, with_file

YEAR = 365 * 86400
_numbers = itertools.count()


@pytest.fixture
def disk(tmp_path_factory, device_user):
    """Mounts a small file system of the device's own: `disk(4)` is the path of one of 4 MiB that its user may write."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    mounted = []

    def mount(mebibytes):
        # Not under pytest's own folder: that is closed to the device's user.
        folder = Path(f"/tmp/edgepack-disk-{os.getpid()}-{next(_numbers)}")
        folder.mkdir()
        options = f"size={mebibytes}m,mode=0777"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False
        )
        if done.returncode:
            folder.rmdir()
            pytest.skip(f"mounting is not permitted: {done.stderr.decode().strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", folder], check=True)
        folder.rmdir()


def test_no_space_for_the_bundle(disk, board, bundle, refused):
    device = board("kitchen", root=f"{disk(3)}/edgepack")
    for command in ("push", "bench"):
        said = refused(4, device, command, bundle, "kitchen")
        assert "no space on the device: " in said
        assert "MB needed" in said
        assert "edgepack devices remove-bundle" in said
    assert list((device.root / "bundles").iterdir()) == []


def test_no_space_for_the_upload(disk, board, bundle, refused, tmp_path):
    device = board("kitchen", root=f"{disk(2)}/edgepack")
    large = with_file(bundle, tmp_path / "large.edgepack", bytes(4 << 20))
    said = refused(4, device, "push", large, "kitchen")
    assert "no space on the device: " in said
    assert "free space there" in said


def test_no_space_for_the_agent(disk, board, bundle, refused):
    folder = disk(2)
    with pytest.raises(OSError, match="No space"):
        (folder / "full").write_bytes(bytes(4 << 20))
    device = board("kitchen", root=f"{folder}/edgepack")
    said = refused(4, device, "push", bundle, "kitchen")
    assert "free some space on the device" in said


def test_read_only_disk(disk, board, bundle, refused):
    folder = disk(4)
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    device = board("kitchen", root=f"{folder}/edgepack")
    for words in (("push", bundle), ("bench", bundle), ("devices", "doctor")):
        said = refused(4, device, *words, "kitchen")
        assert "Read-only file system" in said
        assert "choose a folder that is" in said


def test_disk_that_became_read_only_after_the_push(disk, board, bundle, refused, edgepack):
    folder = disk(64)
    device = board("kitchen", root=f"{folder}/edgepack")
    edgepack("push", bundle, "kitchen")
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    said = refused(4, device, "bench", bundle, "kitchen", "--runs", "5", "--rounds", "1")
    assert "read-only" in said
    assert "--root PATH" in said


def test_folder_of_somebody_else(board, bundle, refused, interpreters):
    if os.geteuid() != 0:
        pytest.skip("needs a device whose user is not this one")
    device = board("kitchen", root=f"/tmp/edgepack-closed-{os.getpid()}-{next(_numbers)}")
    device.root.mkdir(mode=0o755)
    try:
        said = refused(4, device, "push", bundle, "kitchen")
        assert "Permission denied" in said
        assert "log in as a user who may write there" in said
        assert list(device.root.iterdir()) == []
    finally:
        device.root.rmdir()


def test_file_where_the_folder_should_be(board, bundle, refused):
    device = board("kitchen")
    (device.home / ".edgepack").write_text("mine")
    said = refused(4, None, "push", bundle, "kitchen")
    assert "a file stands where a folder is needed" in said
    assert (device.home / ".edgepack").read_text() == "mine"


@pytest.mark.parametrize("years", [-30, 12])
def test_clock_wrong_by_years(board, bundle, edgepack, interpreters, years):
    faketime = shutil.which("faketime")
    if faketime is None:
        pytest.skip("faketime is not installed: apt-get install faketime")
    python = interpreters(*PACKAGES)
    text = f'#!/bin/sh\nexport DONT_FAKE_MONOTONIC=1\nexec {faketime} -f {years:+d}y {python} "$@"\n'
    device = board("kitchen", python=interpreters.script(f"late{years}", text))
    (report,) = edgepack.json("bench", bundle, "kitchen", "--runs", "30", "--rounds", "1")["reports"]
    assert report["parity"]["verdict"] == "pass"
    assert 0 < report["latency"]["p50_ms"] < 60000
    assert abs(report["started_unix"] - time.time() - years * YEAR) < 0.1 * YEAR
    assert abs(edgepack.json("results", "show", report["run"])["stored_unix"] - time.time()) < 3600
    doctor = edgepack.json("devices", "doctor", "kitchen")
    (clock,) = [one for one in doctor["findings"] if one["code"] == "clock"]
    assert ("ahead" if years > 0 else "behind") in clock["message"]
    assert half_written(device.root) == []
