"""A Debian root file system made on the host: packages are unpacked, nothing of them is run.

Hence the fix-ups by hand of what their own scripts would have done. No root is needed: the disk image sets owners.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from typing import TYPE_CHECKING

from agent.contract.errors import DeviceError
from packager.emulate.tools import find_program, run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

USER, USER_ID, HOME = "edge", 1000, "/home/edge"
SETTINGS = "/etc/edgedev"  # host key, authorised keys: put there at each start

# Documentation and translations: half of the small files, of no use on a device.
_LEFT_OUT = ("doc", "man", "locale", "info", "lintian", "bug")

# LoginGraceTime 0: the guest's clock and the host's run apart, so no deadline inside may end a login.
# MaxStartups: parallel tests open many connections.
_SSHD = f"""Port 22
HostKey {SETTINGS}/host_key
AuthorizedKeysFile {SETTINGS}/authorized_keys
StrictModes no
UsePAM no
UseDNS no
PasswordAuthentication no
PermitRootLogin prohibit-password
LoginGraceTime 0
MaxStartups 200
MaxSessions 100
Subsystem sftp internal-sftp
"""

# `wait` without arguments reaps whatever is handed to process 1, and blocks without a timer.
_INIT = f"""#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
/usr/sbin/sshd -D -e -f {SETTINGS}/sshd_config &
wait
echo 'sshd has ended: the machine stops'
exec /bin/busybox poweroff -f
"""


def unpack(debs: Sequence[Path], root: Path) -> None:
    """Unpacks Debian packages over a merged-/usr skeleton. Raises DeviceError when a package cannot be read."""
    for name in ("bin", "sbin", "lib"):
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to("usr/" + name)
    left_out = [f"--exclude=./usr/share/{name}" for name in _LEFT_OUT]
    for deb in debs:
        extract_deb(deb, root, ["--keep-directory-symlink", "--no-same-owner", *left_out])


def extract_deb(deb: Path, folder: Path, options: Sequence[str] = ()) -> None:
    """Unpacks one package's files, with further options for tar."""
    folder.mkdir(parents=True, exist_ok=True)
    dpkg, tar = find_program("dpkg-deb") or "dpkg-deb", find_program("tar") or "tar"
    with tempfile.TemporaryFile() as errors:
        reader = subprocess.Popen([dpkg, "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE, stderr=errors)
        with reader:
            writer = subprocess.run(
                [tar, "-x", "-C", str(folder), *options], stdin=reader.stdout, stderr=errors, check=False
            )
        if reader.returncode or writer.returncode:
            errors.seek(0)
            said = errors.read().decode("utf-8", "replace")
            raise DeviceError(
                f"the package {deb.name} cannot be unpacked",
                where=str(deb),
                expected=f"a whole Debian package; tar said:\n{said[-1000:]}",
                fix="delete the file: it is then fetched again",
                code="broken-package",
            )


def finish(root: Path) -> None:
    """Does by hand what the packages' own scripts would have done, and adds our user, sshd's settings and process 1."""
    _link(root / "usr/bin/sh", "dash")
    _link(root / "usr/bin/awk", "mawk")
    base = root / "usr/share/base-passwd"
    own = f"{USER}:x:{USER_ID}:{USER_ID}:edgepack:{HOME}:/bin/bash\n"
    accounts = (base / "passwd.master").read_text() + own
    accounts += "sshd:x:105:65534::/run/sshd:/usr/sbin/nologin\n"
    _write(root / "etc/passwd", accounts)
    _write(root / "etc/group", (base / "group.master").read_text() + f"{USER}:x:{USER_ID}:\n")
    names = [line.split(":")[0] for line in accounts.splitlines()]
    _write(root / "etc/shadow", "".join(f"{name}:*:19000:0:99999:7:::\n" for name in names), mode=0o640)
    if not (root / "etc/nsswitch.conf").exists():
        shutil.copy(root / "usr/share/libc-bin/nsswitch.conf", root / "etc/nsswitch.conf")
    for folder in ("proc", "sys", "dev", "run", "tmp", "root", HOME.lstrip("/"), SETTINGS.lstrip("/")):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    (root / "root").chmod(0o700)
    _write(root / "etc/hosts", "127.0.0.1 localhost\n")
    _write(root / SETTINGS.lstrip("/") / "sshd_config", _SSHD)
    _write(root / "usr/sbin/edge-init", _INIT, mode=0o755)


def make_disk(root: Path, disk: Path, size: int) -> None:
    """Writes `root` as an ext4 image of `size` bytes whose files belong to root, but for the user's home.

    Raises DeviceError when they do not fit.
    """
    run(
        ["mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", str(root), str(disk), f"{size // 1024}k"],
        what="writing the disk",
    )
    owners = {HOME: USER_ID}
    if os.geteuid() != 0:  # mke2fs took over the owner of each file: this user, who may be anyone in the machine
        owners = dict.fromkeys(_inner_paths(root), 0) | owners
    script = "".join(
        f'set_inode_field "{path}" uid {owner}\nset_inode_field "{path}" gid {owner}\n'
        for path, owner in owners.items()
    )
    run(["debugfs", "-w", "-f", "-", str(disk)], stdin=script.encode(), what="setting the owners of files")


def _inner_paths(root: Path) -> list[str]:
    paths = ["/"]
    for folder, folders, files in os.walk(root):
        inner = "/" + os.path.relpath(folder, root)
        paths += [os.path.normpath(f"{inner}/{name}") for name in (*folders, *files)]
    return paths


def _link(path: Path, target: str) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
