"""A real OpenSSH server on loopback: its own host key, port and HOME; as root, for a throwaway user without rights."""

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

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/local/sbin")
CONFIG = """\
ListenAddress 127.0.0.1
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
AllowTcpForwarding yes
MaxStartups 200
MaxSessions 100
LoginGraceTime 30
"""
_numbers = itertools.count()


def is_root():
    return os.geteuid() == 0


def make_key(path, kind="ed25519", passphrase=""):
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "", "-f", str(path)],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return path


def make_user():
    """A throwaway user where we are root, else ourselves."""
    if not is_root():
        return getpass.getuser()
    name = f"edgepack{os.getpid()}n{next(_numbers)}"
    # "*" and not "!": without PAM sshd refuses an account that is locked.
    subprocess.run(["useradd", "-M", "-d", "/", "-s", "/bin/sh", "-p", "*", name], check=True)
    return name


def remove_user(name):
    if is_root():
        # A session that is just ending may still count as a login, and another run may hold the lock; 6: it is gone.
        for _ in range(50):
            if subprocess.run(["userdel", name], capture_output=True, check=False).returncode in {0, 6}:
                return
            time.sleep(0.1)


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Sshd:
    """One device. `address` is how to reach it; `home` is its HOME; `python` an interpreter that its user may run."""

    def __init__(self, user, public_key, *, host_key="ed25519", config=""):
        assert SSHD, "OpenSSH's sshd is needed: apt-get install openssh-server"
        self.user, self.port, self._extra, self._process = user, free_port(), config, None
        # Not under pytest's own folder: that is closed to other users.
        self.folder = Path(tempfile.mkdtemp(prefix="edgepack-sshd-"))
        self.folder.chmod(0o755)
        self.home = self.folder / "home"
        self.home.mkdir(mode=0o700)
        self.log = self.folder / "log"
        if is_root():
            entry = pwd.getpwnam(user)
            os.chown(self.home, entry.pw_uid, entry.pw_gid)
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        (self.folder / "authorized_keys").write_text(public_key)
        self.new_host_key(host_key)

    @property
    def address(self):
        return f"{self.user}@127.0.0.1:{self.port}"

    @property
    def python(self):
        return "/usr/bin/python3" if is_root() and self.user != getpass.getuser() else sys.executable

    def new_host_key(self, kind="ed25519"):
        for path in (self.folder / "host_key", self.folder / "host_key.pub"):
            path.unlink(missing_ok=True)
        make_key(self.folder / "host_key", kind)

    @property
    def host_key(self):
        """Kind and base64 of the public host key."""
        return (self.folder / "host_key.pub").read_text().strip()

    @property
    def fingerprint(self):
        shown = subprocess.run(
            ["ssh-keygen", "-lf", str(self.folder / "host_key.pub")], check=True, capture_output=True, text=True
        )
        return shown.stdout.split()[1]

    def known_line(self):
        return f"[127.0.0.1]:{self.port} {self.host_key}\n"

    def start(self):
        path = self.folder / "sshd_config"
        # The first value of a setting counts, so the test's own come first.
        path.write_text(self._extra + CONFIG.format(port=self.port, folder=self.folder, home=self.home))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(path)], stdin=subprocess.DEVNULL, stderr=log)
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as sock:
                if sock.recv(4) == b"SSH-":
                    return self
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        raise RuntimeError(f"sshd did not come up:\n{self.log.read_text()}")

    def session_pids(self):
        """Every process under the server: sessions and their commands, the deepest last."""
        parents = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                text = stat.read_text()
                parents.setdefault(int(text.rpartition(")")[2].split()[1]), []).append(int(text.split()[0]))
        found, todo = [], [self._process.pid]
        while todo:
            children = parents.get(todo.pop(0), [])
            found += children
            todo += children
        return found

    def kill_sessions(self):
        """Cuts every connection as a crash would; the commands go too."""
        for pid in self.session_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def cut_sessions(self):
        """Cuts every connection and lets the commands live, as a lost link does."""
        for pid in self.session_pids():
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                if Path(f"/proc/{pid}/comm").read_text().startswith("sshd"):
                    os.kill(pid, signal.SIGKILL)

    def stop(self):
        if self._process is not None:
            self.kill_sessions()
            self._process.kill()
            self._process.wait()
            self._process = None

    def remove(self):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class Client:
    """A user's own side: a HOME with a key, an ssh_config and known_hosts."""

    def __init__(self, home, key):
        self.home = home
        self.ssh = home / ".ssh"
        self.ssh.mkdir(mode=0o700, parents=True)
        self.config, self.known_hosts, self.key = self.ssh / "config", self.ssh / "known_hosts", self.ssh / "id_ed25519"
        shutil.copy(key, self.key)
        shutil.copy(f"{key}.pub", f"{self.key}.pub")
        self.key.chmod(0o600)

    def trust(self, device):
        with self.known_hosts.open("a") as file:
            file.write(device.known_line())
