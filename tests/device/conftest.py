"""Fixtures: real devices behind a real SSH server, and the user's side of it."""

from pathlib import Path

import pytest

from packager import build
from packager.device.local import LocalTransport
from packager.device.ssh import SshTransport
from packager.device.ssh_config import resolve
from tests.device.bench import links
from tests.device.bench.loopback import Loopback, why_not_isolated
from tests.device.road import MODEL, PACKAGES, TARGET, CommandLine, Interpreters, with_file
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


@pytest.fixture(scope="session")
def interpreters(device_user):
    """Interpreters on the devices: `interpreters("numpy", "onnxruntime")` is the path of one that has both."""
    made = Interpreters(device_user)
    yield made
    made.remove()


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    """A bundle of the demo's model for machines of this kind."""
    target = tmp_path_factory.mktemp("bundle") / "fashion.edgepack"
    build(str(MODEL), TARGET, output=target, check=False)
    return target


@pytest.fixture
def edgepack(client):
    """The command line of the test's user."""
    command = CommandLine(client.home)
    yield command
    command.close()


@pytest.fixture
def board(sshd, edgepack, interpreters):
    """Starts devices and registers them: `board("kitchen")`; `.root` is edgepack's folder there, seen from here."""

    def start(name, python="", root="", **options):
        device = sshd(**options)
        device.root = Path(root) if root else device.home / ".edgepack"
        words = ["--root", root] if root else []
        edgepack("devices", "add", name, device.address, "--python", python or interpreters(*PACKAGES), *words)
        return device

    return start


@pytest.fixture(scope="session")
def big_bundle(bundle, tmp_path_factory):
    """The same with a large file more, so that its upload takes a moment."""
    return with_file(bundle, tmp_path_factory.mktemp("big") / "big.edgepack", bytes(40 << 20))


@pytest.fixture
def loopback(user_key):
    """Starts devices in namespaces of their own: `loopback(name="kitchen", memory_bytes=...)`."""
    made = []

    def start(**options):
        made.append(Loopback(user_key.with_name("id_ed25519.pub").read_text(), **options))
        return made[-1].start()

    yield start
    for each in made:
        each.remove()


@pytest.fixture
def linked(loopback):
    """Starts a device behind a link: `device, link = linked("wifi-bad")`, or with a `Quality` of one's own.

    `with link.inside():` opens sockets on its near side; `edgepack.within = link.within` does so for the command line.
    """
    reason = links.why_not() or why_not_isolated()
    if reason:
        pytest.skip(reason)
    made = []

    def start(quality=None, **options):
        link = links.Link(links.PROFILES[quality] if isinstance(quality, str) else quality)
        made.append(link)
        return loopback(network=link.far, host=links.THERE, **options), link

    yield start
    for each in made:
        each.close()


@pytest.fixture(scope="session")
def image():
    """The image of emulated machines, built when it is not cached. Skips where its packages cannot be fetched."""
    from agent.contract.errors import DeviceError
    from packager.emulate.image import ensure_image

    try:
        return ensure_image()
    except DeviceError as error:
        if error.code == "no-mirror" or error.what.startswith("fetching "):
            pytest.skip(f"the packages of an emulated machine cannot be fetched: {error.what}")
        raise
