"""A device with an old system: Debian bullseye (glibc 2.31, Python 3.9) with nothing but python3 and sshd, on loopback.

Its packages are unpacked into a folder that becomes the root of a device in namespaces of its own; nothing is emulated, so
it is as fast as this host. Needs root, and a Debian mirror for the first time.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from pathlib import Path

from packager.emulate import debian, rootfs
from packager.emulate.image import images_folder
from tests.device.bench.loopback import why_not_isolated
from tests.device.sshd import free_port, make_key

SUITE, PYTHON, GLIBC = "bullseye", "3.9", "2.31"
# fmt: off
PACKAGES = (
    "base-files", "base-passwd", "bash", "coreutils", "dash", "findutils", "grep", "gzip", "hostname", "libc-bin", "login",
    "mawk", "openssh-server", "passwd", "procps", "python3", "sed", "tar", "util-linux",
)
# fmt: on
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "")
# $1 root, $2 port: what the device's first process does before it becomes sshd.
BOOT = """set -e
hostname old
mount -t proc proc "$1/proc"; mount --rbind /dev "$1/dev"; mount -t tmpfs run "$1/run"; mkdir "$1/run/sshd"
exec chroot "$1" /usr/sbin/sshd -D -e -f /etc/edgedev/sshd_config -p "$2" -o ListenAddress=127.0.0.1
"""


def why_not():
    """Why there can be none here, or ""."""
    if not ARCHITECTURE:
        return f"Debian's name for {platform.machine()} is not known here"
    missing = [name for name in ("apt-get", "dpkg-deb") if shutil.which(name) is None]
    return f"{', '.join(missing)} missing: a Debian host is needed" if missing else why_not_isolated()


class OldSystem:
    """One device, started. What a client needs is as with `Sshd`."""

    user, python = rootfs.USER, "/usr/bin/python3"

    def __init__(self, folder, public_key):
        """`folder` must not lie where its user cannot pass. Raises DeviceError when the packages cannot be fetched."""
        self.folder, self.root, self.port = folder, folder / "root", free_port()
        debs = debian.fetch_packages(images_folder() / "downloads" / "debs", SUITE, ARCHITECTURE, PACKAGES)
        rootfs.unpack(debs, self.root)
        rootfs.finish(self.root)
        home, settings = self.root / rootfs.HOME.lstrip("/"), self.root / rootfs.SETTINGS.lstrip("/")
        os.chown(home, rootfs.USER_ID, rootfs.USER_ID)
        self.host_key = make_key(settings / "host_key").with_name("host_key.pub").read_text().strip()
        (settings / "authorized_keys").write_text(public_key)
        self._process = None

    @property
    def address(self):
        return f"{self.user}@127.0.0.1:{self.port}"

    def known_line(self):
        return f"[127.0.0.1]:{self.port} {self.host_key}\n"

    def start(self):
        log = self.folder / "log"
        argv = ["unshare", "-m", "-u", "-p", "-f", "--kill-child", "sh", "-c", BOOT, "boot", self.root, str(self.port)]
        with log.open("ab") as out:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        for _ in range(500):
            if "Server listening" in log.read_text():
                return self
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        raise RuntimeError(f"the device did not come up:\n{log.read_text()}")

    def remove(self):
        if self._process is not None:
            self._process.kill()  # --kill-child: the namespace's first process goes too, and with it all others
            self._process.wait()
        shutil.rmtree(self.folder)


def make(folder, public_key):
    """A started device in `folder`, a new one."""
    folder = Path(folder)
    folder.chmod(0o755)
    return OldSystem(folder, public_key).start()
