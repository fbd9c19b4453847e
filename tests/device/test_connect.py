"""Connecting: whom we trust, how we log in, and what is said when it does not work."""

import dataclasses
import os
import re
import signal
import socket
import subprocess
import threading
import time

import pytest

from agent.contract.errors import DeviceError, TransientDeviceError
from packager.device import ssh_connect
from packager.device.ssh_config import resolve
from tests.device.sshd import free_port, is_root, make_key


def refusal(connect, device, **options):
    with pytest.raises(DeviceError) as caught:
        connect(device, **options).connect()
    return caught.value


def test_two_devices_at_once(sshd, connect):
    first, second = sshd(), sshd()
    one, two = connect(first), connect(second)
    for transport, device in ((one, first), (two, second), (one, first)):
        assert transport.run(["sh", "-c", "echo $HOME"]).stdout.decode().strip() == str(device.home)
    if is_root():
        assert one.run(["id", "-u"]).stdout != b"0\n"


def test_socket_is_tuned(sshd, connect):
    transport = connect(sshd())
    transport.connect()
    sock = transport._link.transport.sock
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30000
    assert transport._link.transport.remote_cipher == "aes128-gcm@openssh.com"


def test_unknown_host_key(sshd, connect, client):
    device = sshd(trusted=False)
    error = refusal(connect, device)
    assert (error.code, error.exit_code) == ("host-key-unknown", 4)
    assert device.fingerprint in str(error)
    assert f"edgepack devices add NAME {device.address} --trust-on-first-use" in error.fix
    assert not client.known_hosts.exists()


def test_changed_host_key(sshd, connect, client):
    device = sshd()
    old = device.fingerprint
    device.stop()
    device.new_host_key()
    device.start()
    error = refusal(connect, device)
    assert error.code == "host-key-changed"
    assert device.fingerprint in error.where
    assert old in error.expected
    assert f"{client.known_hosts}, line 1" in error.expected
    assert "ssh-keygen -R" in error.fix


def test_changed_kind_of_host_key_is_no_new_one(sshd, connect):
    device = sshd()
    device.stop()
    device.new_host_key("ecdsa")
    device.start()
    assert refusal(connect, device).code == "host-key-changed"


def test_revoked_host_key(sshd, connect, client):
    device = sshd()
    with client.known_hosts.open("a") as file:
        file.write(f"@revoked * {device.host_key}\n")
    error = refusal(connect, device)
    assert error.code == "host-key-revoked"
    assert f"{client.known_hosts}, line 2" in error.where


def test_hashed_host_name(sshd, connect, client):
    device = sshd()
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(client.known_hosts)], check=True, capture_output=True)
    assert "127.0.0.1" not in client.known_hosts.read_text()
    assert connect(device).run(["echo", "in"]).stdout == b"in\n"


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_known_kind_of_key_is_asked_for(sshd, connect, client, kind):
    # The server has an Ed25519 key too, which paramiko would prefer and the client does not know.
    device = sshd(trusted=False, host_key=kind)
    other = make_key(device.folder / "other_key")
    device.stop()
    device._extra = f"HostKey {other}\n"
    device.start()
    client.trust(device)
    assert connect(device).run(["echo", "in"]).stdout == b"in\n"


def test_trust_on_first_use_asks_and_remembers(sshd, connect, client):
    device = sshd(trusted=False)
    address, asked = resolve(device.address), []

    def no(hop, key):
        asked.append(key.fingerprint)
        return False

    with pytest.raises(DeviceError) as caught:
        ssh_connect.trust_on_first_use(address, no)
    assert caught.value.code == "host-key-unknown"
    assert asked == [device.fingerprint]
    assert not client.known_hosts.exists()
    ssh_connect.trust_on_first_use(address, lambda *_: True)
    assert client.known_hosts.read_text() == device.known_line()
    assert client.known_hosts.stat().st_mode & 0o777 == 0o600
    ssh_connect.trust_on_first_use(address, no)  # not asked again
    assert asked == [device.fingerprint]
    assert connect(device).run(["true"]).status == 0


def test_alias_with_jump_each_hop_verified(sshd, connect, client):
    gate, board = sshd(trusted=False), sshd(trusted=False)
    client.config.write_text(
        f"Host gate\n  HostName 127.0.0.1\n  Port {gate.port}\n  User {gate.user}\n"
        f"Host board\n  HostName 127.0.0.1\n  Port {board.port}\n  User {board.user}\n  ProxyJump gate\n"
    )
    assert gate.fingerprint in str(refusal(connect, "board"))
    client.trust(gate)
    assert board.fingerprint in str(refusal(connect, "board"))
    client.trust(board)
    transport = connect("board")
    assert transport.run(["sh", "-c", "echo $HOME"]).stdout.decode().strip() == str(board.home)
    assert len(transport.run(["head", "-c", "3000000", "/dev/zero"]).stdout) == 3000000
    assert "Accepted publickey" in gate.log.read_text()
    gate.kill_sessions()
    with pytest.raises(TransientDeviceError):
        transport.run(["sleep", "5"], deadline=20)
    assert transport.run(["true"]).status == 0  # over a new connection, through the gate again


def test_trust_on_first_use_asks_for_each_hop(sshd, connect, client):
    gate, board = sshd(trusted=False), sshd(trusted=False)
    client.config.write_text(
        f"Host board\n  HostName 127.0.0.1\n  Port {board.port}\n  User {board.user}\n  ProxyJump {gate.address}\n"
    )
    asked = []
    ssh_connect.trust_on_first_use(resolve("board"), lambda _, key: asked.append(key.fingerprint) or True)
    assert asked == [gate.fingerprint, board.fingerprint]
    assert connect("board").run(["true"]).status == 0


def test_jump_host_that_lets_nobody_through(sshd, connect, client):
    gate, board = sshd(config="AllowTcpForwarding no\n"), sshd()
    client.config.write_text(f"Host board\n  HostName 127.0.0.1\n  Port {board.port}\n  ProxyJump {gate.address}\n")
    assert refusal(connect, "board").code == "jump-refused"


def test_jump_to_a_closed_port(sshd, connect, client):
    gate = sshd()
    client.config.write_text(f"Host board\n  HostName 127.0.0.1\n  Port {free_port()}\n  ProxyJump {gate.address}\n")
    error = refusal(connect, "board")
    assert (error.code, error.retry) == ("unreachable", True)


def test_refused_port(connect):
    error = refusal(connect, f"x@127.0.0.1:{free_port()}")
    assert isinstance(error, TransientDeviceError)
    assert (error.code, error.exit_code) == ("unreachable", 5)
    assert "refused" in str(error)


def test_unknown_host(connect):
    error = refusal(connect, "x@no-such-device.invalid")
    assert (error.code, error.exit_code, error.retry) == ("unknown-host", 4, False)


def test_name_that_cannot_be_a_host(connect):
    assert refusal(connect, f"x@{'a' * 300}").code == "unknown-host"


@pytest.mark.parametrize(
    ("answer", "code"),
    [(b"HTTP/1.1 400 Bad Request\r\n" * 200, "not-ssh"), (b"", "unreachable"), (None, "unreachable")],
)
def test_port_of_something_else(connect, answer, code):
    with socket.create_server(("127.0.0.1", 0)) as server:
        quit_ = threading.Event()

        def serve():
            conn, _ = server.accept()
            with conn:
                if answer is None:
                    quit_.wait(30)
                elif answer:
                    conn.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        error = refusal(connect, f"x@127.0.0.1:{server.getsockname()[1]}", connect_timeout=1)
        quit_.set()
        thread.join()
    assert error.code == code


def test_wrong_key(sshd, connect, client):
    device = sshd()
    for path in (client.key, client.ssh / "id_ed25519.pub"):
        path.unlink()
    assert "there is no key to offer" in str(refusal(connect, device))
    make_key(client.key)
    error = refusal(connect, device)
    assert (error.code, error.exit_code) == ("auth", 4)
    assert f"{client.key}: refused" in error.where
    assert "ssh-copy-id" in error.fix


def test_wrong_user(sshd, connect, client):
    device = sshd()
    assert refusal(connect, f"nobody-here@127.0.0.1:{device.port}").code == "auth"


def test_too_many_keys(sshd, connect, client):
    device = sshd(config="MaxAuthTries 2\n")
    names = [make_key(client.ssh / f"key{number}") for number in range(4)]
    client.config.write_text("".join(f"IdentityFile {name}\n" for name in names))
    error = refusal(connect, device)
    assert error.code == "auth"
    assert "the device hung up" in error.where


def test_key_named_in_the_configuration(sshd, connect, client):
    device = sshd()
    client.key.rename(client.ssh / "board key")
    client.config.write_text('Host 127.0.0.1\n  IdentityFile "~/.ssh/board key"\n')
    assert connect(device).run(["true"]).status == 0


def test_encrypted_key_without_and_with_an_agent(sshd, connect, client, monkeypatch, tmp_path):
    device = sshd()
    subprocess.run(
        ["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", client.key], check=True, capture_output=True
    )
    error = refusal(connect, device)
    assert error.code == "auth"
    assert f"{client.key}: encrypted" in error.where
    assert f"ssh-add {client.key}" in error.where

    sock = tmp_path / "agent.sock"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(sock)], stdout=subprocess.DEVNULL)
    try:
        while not sock.is_socket():
            time.sleep(0.01)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(sock))
        ask = tmp_path / "ask"
        ask.write_text("#!/bin/sh\necho secret\n")
        ask.chmod(0o755)
        environ = {**os.environ, "SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0"}
        subprocess.run(["ssh-add", "-q", client.key], check=True, env=environ, capture_output=True)
        assert connect(device).run(["true"]).status == 0
    finally:
        agent.terminate()
        agent.wait()


def test_link_lost_in_the_middle_of_a_command(sshd, connect):
    device = sshd()
    transport = connect(device)
    with pytest.raises(TransientDeviceError) as caught:
        transport.run(["sh", "-c", "echo up; sleep 60"], on_line=lambda _: device.kill_sessions(), deadline=30)
    assert caught.value.code == "link-lost"
    assert transport.run(["echo", "back"]).stdout == b"back\n"


def test_device_that_goes_silent_is_noticed(sshd, connect):
    # The session is frozen, not closed: nothing on the wire says so, only the silence does.
    device = sshd()
    transport = connect(device)
    frozen = []

    def freeze(_):
        frozen.extend(device.session_pids())
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)

    with pytest.raises(TransientDeviceError) as caught:
        transport.run(["sh", "-c", "echo up; sleep 60"], on_line=freeze, idle=1)
    assert caught.value.code == "deadline"
    with pytest.raises(TransientDeviceError) as caught:
        transport.run(["true"], deadline=1)
    assert caught.value.code in {"deadline", "link-lost"}
    assert transport.run(["echo", "back"]).stdout == b"back\n"


def test_upload_to_a_frozen_device_ends(sshd, connect):
    device = sshd()
    transport = connect(device)

    def freeze(_):
        for pid in device.session_pids():
            os.kill(pid, signal.SIGSTOP)

    with pytest.raises(TransientDeviceError) as caught:
        transport.run(["sh", "-c", "echo up; cat >/dev/null"], stdin=bytes(64 << 20), on_line=freeze, deadline=2)
    assert caught.value.code == "deadline"


def test_account_that_may_run_nothing(sshd, connect):
    device = sshd(config="MaxSessions 0\n")
    with pytest.raises(DeviceError) as caught:
        connect(device).run(["true"], deadline=30)
    assert caught.value.code == "exec-refused"


def test_own_socket_and_close(sshd, connect):
    device = sshd()
    dialled = []

    def dial(host, port, timeout):
        dialled.append((host, port))
        return socket.create_connection((host, port), timeout)

    transport = connect(device, dial=dial)
    transport.run(["true"])
    transport.run(["true"])
    assert dialled == [("127.0.0.1", device.port)]
    transport.close()
    transport.close()
    transport.run(["true"])
    assert len(dialled) == 2


def test_nothing_is_written_on_our_own_streams(sshd, connect, capfd):
    device = sshd(trusted=False)
    refusal(connect, device)
    refusal(connect, f"x@127.0.0.1:{free_port()}")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up():
            server.accept()[0].close()

        threading.Thread(target=hang_up).start()
        refusal(connect, f"x@127.0.0.1:{server.getsockname()[1]}", connect_timeout=2)
    assert capfd.readouterr() == ("", "")


def test_fingerprint_is_openssh_form(sshd, client):
    device = sshd()
    key = ssh_connect.scan_host_key(dataclasses.replace(resolve(device.address)))
    assert re.fullmatch(r"SHA256:[A-Za-z0-9+/]{43}", key.fingerprint)
    assert key.fingerprint == device.fingerprint
