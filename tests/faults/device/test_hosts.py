"""Devices that cannot be reached, or are not the one we know."""

from __future__ import annotations

import pytest

from tests.device.sshd import free_port, make_key

COMMANDS = {
    "push": lambda bundle: ("push", bundle),
    "bench": lambda bundle: ("bench", bundle),
    "doctor": lambda _: ("devices", "doctor"),
    "list-bundles": lambda _: ("devices", "list-bundles"),
    "collect": lambda _: ("results", "collect"),
}


@pytest.fixture(params=COMMANDS)
def command(request, bundle):
    """Each command that goes to a device, without the device's name."""
    return COMMANDS[request.param](bundle)


def test_unknown_host(refused, command):
    said = refused(4, None, *command, "pi@no-such-device.invalid")
    assert "the host of pi@no-such-device.invalid is not known" in said
    assert "edgepack devices list" in said


def test_misspelled_device_names_the_nearest(refused, board):
    board("kitchen")
    assert "did you mean the device 'kitchen'?" in refused(4, None, "devices", "doctor", "kichen")


def test_refused_port(refused, command):
    said = refused(5, None, *command, f"pi@127.0.0.1:{free_port()}")
    assert "cannot be reached: Connection refused" in said
    assert "its SSH server runs" in said


def test_wrong_user_key(refused, board, client, command):
    device = board("kitchen")
    client.key.unlink()
    make_key(client.key)
    said = refused(4, device, *command, "kitchen")
    assert f"refused the login as {device.user!r}" in said
    assert "id_ed25519: refused" in said
    assert f"ssh-copy-id -p {device.port}" in said


def test_unknown_host_key(refused, board, client, command):
    device = board("kitchen", trusted=False)
    said = refused(4, device, *command, "kitchen")
    assert device.fingerprint in said
    assert "--trust-on-first-use" in said
    assert not client.known_hosts.exists()
    assert not device.root.exists()


def test_changed_host_key(refused, board, client, command):
    device = board("kitchen")
    old, known = device.fingerprint, client.known_hosts.read_text()
    device.stop()
    device.new_host_key()
    device.start()
    said = refused(4, device, *command, "kitchen")
    assert device.fingerprint in said
    assert old in said
    assert "ssh-keygen -R" in said
    assert client.known_hosts.read_text() == known
    assert not device.root.exists()
