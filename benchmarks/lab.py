"""A client and its devices on loopback, for the benchmarks of delivery: all of it in a scratch folder, gone at the end."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from packager.device import inventory
from tests.device.bench.loopback import Loopback
from tests.device.road import PACKAGES, Interpreters
from tests.device.sshd import Client, make_key


class Lab:
    """`with Lab() as lab: lab.device("kitchen")` starts a device, known by that name. HOME is the client's from then on."""

    def __init__(self):
        self._scratch = tempfile.TemporaryDirectory()
        self.folder = Path(self._scratch.name)
        self.key = make_key(self.folder / "id_ed25519")
        os.environ["HOME"] = str(self.folder / "home")
        for name in ("SSH_AUTH_SOCK", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
            os.environ.pop(name, None)
        self.client = Client(self.folder / "home", self.key)
        self._devices, self._interpreters = [], None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for device in self._devices:
            device.remove()
        if self._interpreters is not None:
            self._interpreters.remove()
        self._scratch.cleanup()

    def device(self, name, *, runtime=False, **options):
        """A device, switched on; with `runtime` its interpreter can run bundles."""
        device = Loopback(self.key.with_name("id_ed25519.pub").read_text(), name=name, **options)
        self._devices.append(device)
        device.start()
        self.register(name, device, self.python_with_runtime() if runtime else device.python)
        return device

    def register(self, name, device, python=""):
        """Makes it known by its address as it is now; again where that has changed."""
        python = python or inventory.resolve(name).python
        self.client.trust(device)
        inventory.add(name, inventory.DeviceEntry(address=device.address, python=python), replace=True)

    def python_with_runtime(self):
        """An interpreter with ONNX Runtime that every device's user may run."""
        if self._interpreters is None:
            self._interpreters = Interpreters("nobody")
        return self._interpreters(*PACKAGES)


def two_bundles(folder, padding):
    """Two bundles of the demo's model that differ in a file of `padding` random bytes: their paths and digests."""
    from packager import build
    from tests.device.road import MODEL, TARGET, digest_of, with_file

    base = folder / "base.edgepack"
    build(str(MODEL), TARGET, output=base, check=False)
    made = [with_file(base, folder / f"{name}.edgepack", os.urandom(padding)) for name in ("one", "two")]
    return made, [digest_of(path) for path in made]
