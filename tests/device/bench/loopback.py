"""A device on loopback: OpenSSH in its own namespaces, with a user, HOME, host name and disk of its own.

Mount, UTS and PID namespace are its own; its user exists only in its own /etc/passwd. Pulling its plug is one SIGKILL,
which takes every process with it; started again it has the same disk. Without root it is a plain sshd for the present
user, and what then cannot be had is said by `why_not_isolated`.
"""

from __future__ import annotations

import contextlib
import getpass
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.device.bench.cgroup import Cgroup
from tests.device.sshd import SSHD, free_port, is_root, make_key

USER, USER_ID = "edge", 61234
CONFIG = """\
ListenAddress {address}
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
SetEnv HOME={home}
PidFile none
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 200
MaxSessions 100
Subsystem sftp internal-sftp
"""
# $1 name, $2 folder, $3 disk image or "": what the device's first process does before it becomes sshd.
BOOT = f"""set -e
hostname "$1"
mount --bind "$2/etc" /etc
mount -t tmpfs run /run; mkdir -p /run/sshd
if [ -n "$3" ]; then mount -o loop "$3" "$2/home"; chown {USER_ID}:{USER_ID} "$2/home"; fi
exec "$4" -D -e -f "$2/sshd_config"
"""
_numbers = itertools.count()


def why_not_isolated():
    """Why devices have no namespaces of their own here, or ""."""
    if not SSHD:
        return "OpenSSH's sshd is not installed: apt-get install openssh-server"
    if not is_root():
        return "namespaces need root"
    tried = subprocess.run(["unshare", "-m", "-u", "-p", "-f", "true"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else f"namespaces are not permitted: {tried.stderr.decode().strip()}"


class Loopback:
    """One device. `network` is a network namespace to live in, on port 22; `disk_bytes` the size of a disk that can be full.

    `address`, `host_key` and `known_line()` are what a client needs; `home` is its HOME, as seen from the host (with
    `disk_bytes` the host sees only the mount point).
    """

    def __init__(
        self, public_key, *, name="", network="", host="127.0.0.1", memory_bytes=None, cpus=None, disk_bytes=None
    ):
        assert SSHD, "OpenSSH's sshd is needed: apt-get install openssh-server"
        self.isolated = not why_not_isolated()
        number = next(_numbers)
        self.name = name or f"loopback-{number}"
        self.network, self.host = network, host
        self.port = 22 if network else free_port()
        self.user = USER if self.isolated else getpass.getuser()
        self.folder = Path(tempfile.mkdtemp(prefix="edgepack-device-"))
        self.folder.chmod(0o755)
        self.home = self.folder / "home"
        self.home.mkdir(mode=0o700)
        self.log = self.folder / "log"
        self.disk = ""
        self._process, self._cgroup = None, None
        make_key(self.folder / "host_key")
        (self.folder / "authorized_keys").write_text(public_key)
        config = CONFIG.format(address=host, port=self.port, folder=self.folder, home=self.home)
        (self.folder / "sshd_config").write_text(config)
        if self.isolated:
            self._make_accounts()
            if disk_bytes:
                self._make_disk(disk_bytes)
            if memory_bytes or cpus:
                self._cgroup = Cgroup(f"edgepack-{number}", memory_bytes=memory_bytes, cpus=cpus)
        else:
            wanted = (network, memory_bytes, cpus, disk_bytes)
            assert not any(wanted), why_not_isolated()

    @property
    def address(self):
        return f"{self.user}@{self.host}:{self.port}"

    @property
    def host_key(self):
        """Kind and base64 of the public host key."""
        return " ".join((self.folder / "host_key.pub").read_text().split()[:2])

    def known_line(self):
        host = self.host if self.port == 22 else f"[{self.host}]:{self.port}"
        return f"{host} {self.host_key}\n"

    @property
    def python(self):
        """An interpreter that the device's user may run."""
        return "/usr/bin/python3" if self.isolated else sys.executable

    @property
    def running(self):
        return self._process is not None and self._process.poll() is None

    def start(self):
        """Switches it on; returns once its sshd answers."""
        assert not self.running
        argv = [SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")]
        if self.isolated:
            boot = ["sh", "-c", BOOT, "boot", self.name, str(self.folder), self.disk, SSHD]
            argv = ["unshare", "-m", "-u", "-p", "-f", "--kill-child", "--mount-proc", *boot]
        if self.network:
            argv = ["ip", "netns", "exec", self.network, *argv]
        if self._cgroup:
            argv = ["sh", "-c", self._cgroup.join + 'exec "$@"', "limit", *argv]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        started = self.log.stat().st_size
        for _ in range(500):
            if self._answers(started):
                return self
            if not self.running:
                break
            time.sleep(0.02)
        self.power_cut()
        raise RuntimeError(f"the device did not come up:\n{self.log.read_text()}")

    def power_cut(self):
        """Pulls the plug: every process of the device is gone at once, nothing is told, the disk stays as it is."""
        if self._process is None:
            return
        if not self.isolated:
            for pid in _descendants(self._process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._process.kill()  # unshare's --kill-child takes the namespace's first process, and that all others
        self._process.wait()
        self._process = None

    def restart(self):
        """Power cut, then the same disk, keys and port again."""
        self.power_cut()
        return self.start()

    def remove(self):
        self.power_cut()
        if self._cgroup:
            self._cgroup.remove()
            self._cgroup = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def _answers(self, started):
        if self.network:  # out of reach from here: its own word must do
            return b"Server listening on" in self.log.read_bytes()[started:]
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), 1) as sock:
            return sock.recv(4) == b"SSH-"
        return False

    def _make_accounts(self):
        """A copy of /etc with one user more, which replaces the original inside the device only.

        All of it: were it the three files alone, a user added on the host, whose tools write them anew and rename, would
        take the device's own away.
        """
        etc = self.folder / "etc"
        # Not checked: a file may vanish meanwhile. Those that matter are read below.
        subprocess.run(["cp", "-a", "/etc", str(etc)], capture_output=True, check=False)
        own = {
            "passwd": f"{USER}:x:{USER_ID}:{USER_ID}:edgepack:{self.home}:/bin/sh\n",
            "group": f"{USER}:x:{USER_ID}:\n",
            "shadow": f"{USER}:*:19000:0:99999:7:::\n",  # "*" and not "!": without PAM a locked account is refused
        }
        for name, line in own.items():
            (etc / name).unlink(missing_ok=True)
            shutil.copyfile(f"/etc/{name}", etc / name)
            with (etc / name).open("a") as file:
                file.write(line)
        if "sshd" not in {entry.pw_name for entry in pwd.getpwall()}:
            with (etc / "passwd").open("a") as file:
                file.write("sshd:x:61235:65534::/run/sshd:/usr/sbin/nologin\n")
        (etc / "shadow").chmod(0o640)
        (etc / "hostname").unlink(missing_ok=True)
        (etc / "hostname").write_text(self.name + "\n")
        os.chown(self.home, USER_ID, USER_ID)

    def _make_disk(self, size):
        path = self.folder / "disk.img"
        subprocess.run(
            ["mke2fs", "-q", "-t", "ext4", "-m", "0", str(path), f"{size // 1024}k"], check=True, capture_output=True
        )
        self.disk = str(path)


def _descendants(pid):
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            text = stat.read_text()
            parents.setdefault(int(text.rpartition(")")[2].split()[1]), []).append(int(text.split()[0]))
    found, todo = [], [pid]
    while todo:
        children = parents.get(todo.pop(0), [])
        found += children
        todo += children
    return found
