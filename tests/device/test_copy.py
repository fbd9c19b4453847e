"""Files to and from a device: whole and true at their place, or not there at all."""

import hashlib
import os
import subprocess
import threading
import time

import pytest

from agent.contract.errors import DeviceError, IntegrityError, TransientDeviceError, UsageError
from packager.device import bootstrap
from packager.device.local import LocalTransport
from tests.device.sshd import is_root


@pytest.fixture
def payload(tmp_path):
    path = tmp_path / "model.bin"
    path.write_bytes(os.urandom(5_000_001))
    return path


@pytest.fixture
def folder(transport):
    """A fresh folder on the device."""
    path = transport.run(["mktemp", "-d"]).stdout.decode().strip()
    yield path
    transport.run(["rm", "-rf", path])


def names(transport, folder):
    return transport.run(["ls", "-A", folder]).stdout.decode().split()


def test_there_and_back(transport, folder, payload, tmp_path):
    sent = []
    transport.put(payload, f"{folder}/deep er/x.bin", progress=sent.append)
    assert sum(sent) == payload.stat().st_size
    assert names(transport, f"{folder}/deep er") == ["x.bin"]
    transport.get(f"{folder}/deep er/x.bin", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == payload.read_bytes()
    assert transport.run(["stat", "-c", "%a", f"{folder}/deep er/x.bin"]).stdout == b"600\n"


def test_empty_file_and_one_that_replaces_another(transport, folder, payload, tmp_path):
    empty = tmp_path / "empty"
    empty.touch()
    transport.put(payload, f"{folder}/f")
    transport.put(empty, f"{folder}/f")
    transport.get(f"{folder}/f", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b""


def test_what_a_power_cut_left_goes_a_day_later(transport, folder, payload):
    transport.run(["touch", "-d", "2 days ago", f"{folder}/.x.00ff.part", f"{folder}/.y.00ff.part"])
    transport.run(["touch", f"{folder}/.x.11ff.part"])
    transport.put(payload, f"{folder}/x")
    assert sorted(names(transport, folder)) == [".x.11ff.part", ".y.00ff.part", "x"]


def test_file_that_looks_like_an_answer(transport, folder, tmp_path):
    tricky = tmp_path / "tricky"
    tricky.write_bytes(b'{"error": "x"}\n{"get": 3}\n{"sha256": ""}')
    transport.put(tricky, f"{folder}/f")
    transport.get(f"{folder}/f", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == tricky.read_bytes()


def test_target_under_home(sshd, connect, payload):
    device = sshd()
    transport = connect(device)
    transport.put(payload, "~/.edgepack/agent/a.pyz")
    assert (device.home / ".edgepack/agent/a.pyz").read_bytes() == payload.read_bytes()
    said = bootstrap.hello(transport, device.python, ["~/.edgepack/agent/a.pyz", "~/nothing"])
    assert said["home"] == str(device.home)
    assert said["paths"] == {
        "~/.edgepack/agent/a.pyz": {"path": str(device.home / ".edgepack/agent/a.pyz"), "exists": True},
        "~/nothing": {"path": str(device.home / "nothing"), "exists": False},
    }


def test_talkative_login_script_is_read_over(sshd, connect, payload, tmp_path):
    device = sshd(config="ForceCommand echo 'Welcome!'; echo '# be good'; eval \"$SSH_ORIGINAL_COMMAND\"\n")
    transport = connect(device)
    transport.put(payload, "~/x")
    transport.get("~/x", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == payload.read_bytes()


def test_nothing_to_send(transport, folder, tmp_path):
    with pytest.raises(UsageError, match="cannot read"):
        transport.put(tmp_path / "missing", f"{folder}/f")


def test_nothing_to_get(transport, folder, tmp_path):
    with pytest.raises(DeviceError) as caught:
        transport.get(f"{folder}/missing", tmp_path / "back")
    assert caught.value.code == "no-file"
    assert list(tmp_path.glob("*back*")) == list(tmp_path.glob(".*part")) == []


def test_no_folder_to_get_into(transport, folder, tmp_path):
    with pytest.raises(UsageError, match="cannot write"):
        transport.get("/etc/hostname", tmp_path / "none" / "back")


def test_file_where_a_folder_is_needed(transport, folder, payload):
    transport.run(["touch", f"{folder}/file"])
    with pytest.raises(DeviceError) as caught:
        transport.put(payload, f"{folder}/file/x")
    assert caught.value.code == "not-a-folder"


def test_folder_where_a_file_is_needed(transport, folder, payload):
    transport.run(["mkdir", f"{folder}/x"])
    with pytest.raises(DeviceError) as caught:
        transport.put(payload, f"{folder}/x")
    assert caught.value.code == "is-a-folder"
    assert names(transport, folder) == ["x"]


@pytest.mark.skipif(not is_root(), reason="mounting needs root")
def test_no_space(transport, folder, payload):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=777", "tmpfs", folder], check=True)
    try:
        with pytest.raises(DeviceError) as caught:
            transport.put(payload, f"{folder}/x")
        assert caught.value.code == "no-space"
        assert names(transport, folder) == []
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.skipif(not is_root(), reason="mounting needs root")
def test_space_that_ends_in_the_middle(transport, folder, payload, monkeypatch):
    # As on a disk that others fill at the same time: the look at the free space beforehand is taken out.
    monkeypatch.setattr(bootstrap, "PUT", bootstrap.PUT.replace("free < size", "False"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=777", "tmpfs", folder], check=True)
    try:
        with pytest.raises(DeviceError) as caught:
            transport.put(payload, f"{folder}/x")
        assert caught.value.code == "no-space"
        assert names(transport, folder) == []
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.skipif(not is_root(), reason="mounting needs root")
def test_read_only(transport, folder, payload):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", folder], check=True)
    try:
        with pytest.raises(DeviceError) as caught:
            transport.put(payload, f"{folder}/new/x")
        assert caught.value.code == "read-only"
    finally:
        subprocess.run(["umount", folder], check=True)


def test_no_permission(sshd, connect, payload):
    device = sshd()
    if device.user == "root":
        pytest.skip("root may write anywhere")
    with pytest.raises(DeviceError) as caught:
        connect(device).put(payload, "/etc/edgepack-test")
    assert caught.value.code == "permission"


def test_no_python(transport, payload, folder):
    for python in ("python-is-not-here", f"{folder}/python"):
        transport.python = python
        with pytest.raises(DeviceError) as caught:
            transport.put(payload, f"{folder}/x")
        assert caught.value.code == "no-python"


def test_python_that_is_something_else(transport, payload, folder, tmp_path):
    transport.python = "false"
    with pytest.raises(DeviceError) as caught:
        transport.put(payload, f"{folder}/x")
    assert caught.value.code == "python-failed"
    with pytest.raises(DeviceError) as caught:
        transport.get("/etc/hostname", tmp_path / "x")
    assert caught.value.code == "python-failed"


def test_bytes_that_change_on_the_way(folder, transport, payload, tmp_path):
    # The file is written to between its hash and its sending.
    def spoil(_):
        with payload.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"?")

    data = payload.read_bytes()
    payload.write_bytes(data[:-1] + b"!")
    with pytest.raises(IntegrityError) as caught:
        transport.put(payload, f"{folder}/x", progress=spoil)
    assert caught.value.code == "digest"
    assert names(transport, folder) == []


def test_device_that_lies_about_a_file(transport, folder, tmp_path):
    for answer in (
        '{"get": 3}\nabc\n{"sha256": "00"}',
        '{"get": 999999999999}\n',
        '{"get": "3"}\n',
        "[]",
        '{"get": 3}\nab',
    ):
        transport.run(["sh", "-c", f"printf '#!/bin/sh\\ncat <<EOF\\n%s\\nEOF\\n' '{answer}' >{folder}/liar"])
        transport.run(["chmod", "+x", f"{folder}/liar"])
        transport.python = f"{folder}/liar"
        with pytest.raises((DeviceError, IntegrityError)):
            transport.get("/anything", tmp_path / "x")
        assert not (tmp_path / "x").exists()


def test_link_that_is_cut_leaves_nothing_half(sshd, connect, tmp_path):
    device = sshd()
    transport = connect(device)
    big = tmp_path / "big"
    big.write_bytes(bytes(64 << 20))
    cut = threading.Event()

    def progress(_):
        if not cut.is_set():
            cut.set()
            device.cut_sessions()  # the program that receives lives on

    with pytest.raises(TransientDeviceError) as caught:
        transport.put(big, "~/big", progress=progress)
    assert caught.value.code == "link-lost"
    for _ in range(100):
        if not list(device.home.iterdir()):
            break
        time.sleep(0.05)
    assert list(device.home.iterdir()) == []
    transport.put(tmp_path / "big", "~/big")  # over a new connection
    assert hashlib.sha256((device.home / "big").read_bytes()).digest() == hashlib.sha256(bytes(64 << 20)).digest()


def test_local_folder_is_the_home_of_the_environment(client, payload):
    LocalTransport().put(payload, "~/sub/x")
    assert (client.home / "sub/x").read_bytes() == payload.read_bytes()
