"""Fixtures: real devices behind a real SSH server, and the user's side of it."""

import pytest

from packager.device.local import LocalTransport
from packager.device.ssh import SshTransport
from packager.device.ssh_config import resolve
from tests.device.sshd import SSHD, Client, Sshd, make_key, make_user, remove_user


@pytest.fixture(scope="session")
def user_key(tmp_path_factory):
    return make_key(tmp_path_factory.mktemp("key") / "id_ed25519")


@pytest.fixture(scope="session")
def device_user():
    if not SSHD:
        pytest.skip("OpenSSH's sshd is not installed: apt-get install openssh-server")
    name = make_user()
    yield name
    remove_user(name)


@pytest.fixture
def client(tmp_path, user_key, monkeypatch):
    """A HOME of the test's own, the process's for as long as the test lasts."""
    home = tmp_path / "client"
    monkeypatch.setenv("HOME", str(home))
    for name in ("SSH_AUTH_SOCK", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return Client(home, user_key)


@pytest.fixture
def sshd(device_user, user_key, client):
    """Starts devices: `sshd()` gives one that the client trusts, `sshd(trusted=False)` one that it does not."""
    devices = []

    def start(*, trusted=True, user=device_user, **options):
        device = Sshd(user, user_key.with_name("id_ed25519.pub").read_text(), **options)
        devices.append(device)
        device.start()
        if trusted:
            client.trust(device)
        return device

    yield start
    for device in devices:
        device.remove()


@pytest.fixture
def connect(client):
    """Opens transports to devices or addresses, and closes them."""
    opened = []

    def open_(device, **options):
        address = device if isinstance(device, str) else device.address
        options.setdefault("python", getattr(device, "python", "python3"))
        transport = SshTransport(resolve(address), **options)
        opened.append(transport)
        return transport

    yield open_
    for transport in opened:
        transport.close()


@pytest.fixture(params=["ssh", "local"])
def transport(request):
    """What both transports promise is tested on both."""
    if request.param == "local":
        return LocalTransport()
    device = request.getfixturevalue("sshd")()
    return request.getfixturevalue("connect")(device)
