"""The host keys we trust: OpenSSH's known_hosts files, read and appended to.

Read by us rather than by the SSH library because a refusal must name the file and the line, and because @revoked,
patterns and several keys of one kind count. There is no way to connect without this check.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import fcntl
import fnmatch
import hashlib
import hmac
import os
import re
import shlex
from typing import TYPE_CHECKING

from agent.contract.errors import DeviceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

DEFAULT_PORT = 22


@dataclasses.dataclass(frozen=True)
class HostKey:
    """A server's public key: `kind` as in "ssh-ed25519", `blob` as on the wire."""

    kind: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """As OpenSSH shows it: "SHA256:" and unpadded base64."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")

    def line(self, name: str) -> str:
        """The key's line in a known_hosts file."""
        return f"{name} {self.kind} {base64.b64encode(self.blob).decode()}\n"


@dataclasses.dataclass(frozen=True)
class KnownKey:
    """A line of a known_hosts file about the host asked for. `marker` is "", "@revoked" or "@cert-authority"."""

    key: HostKey
    file: Path
    line: int
    marker: str = ""

    @property
    def where(self) -> str:
        """File and line."""
        return f"{self.file}, line {self.line}"


def known_name(host: str, port: int) -> str:
    """A host's name in known_hosts: `host`, or `[host]:port` off the standard port."""
    host = host.lower()
    return host if port == DEFAULT_PORT else f"[{host}]:{port}"


def lookup(name: str, files: Iterable[Path]) -> list[KnownKey]:
    """Every line about `name` in `files`, in order; a file that is not there holds none. Raises UsageError."""
    found = []
    for file in files:
        try:
            raw = file.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise UsageError(f"cannot read the known host keys: {error}", code="known-hosts") from error
        for number, line in enumerate(raw.decode("utf-8", "replace").split("\n"), 1):
            known = _parse(line, name, file, number)
            if known is not None:
                found.append(known)
    return found


def verify(name: str, key: HostKey, files: Sequence[Path], device: str) -> None:
    """Passes only when `key` is known for `name` and not revoked; `device` is the address as the user gave it.

    Raises DeviceError with the code "host-key-unknown", "host-key-changed" or "host-key-revoked".
    """
    about = lookup(name, files)
    known = [entry for entry in about if not entry.marker]
    for entry in about:
        if entry.marker == "@revoked" and entry.key == key:
            raise DeviceError(
                f"the host key of {device} was revoked",
                where=f"{key.kind} {key.fingerprint}, revoked in {entry.where}",
                fix="do not trust this device until it has a new key",
                code="host-key-revoked",
            )
    if any(entry.key == key for entry in known):
        return
    if not known:
        raise _unknown(name, key, files, device, about)
    # The same kind first: that is the line which the new key contradicts.
    entry = min(known, key=lambda entry: entry.key.kind != key.kind)
    remove = f"ssh-keygen -R {shlex.quote(name)} -f {shlex.quote(str(entry.file))}"
    raise DeviceError(
        f"the host key of {device} has changed: this may be another device, or someone between you and it",
        where=f"it shows {key.kind} {key.fingerprint}",
        expected=f"{entry.key.kind} {entry.key.fingerprint} ({entry.where})",
        fix=f"only if you know why (the device was installed anew): {remove}\nthen: {_accept(device)}",
        code="host-key-changed",
    )


def remember(host: str, port: int, key: HostKey, file: Path) -> None:
    """Appends the key of `host` to `file`, which is made (0600) where missing. Raises UsageError."""
    remember_name(known_name(host, port), key, file)


def remember_name(name: str, key: HostKey, file: Path) -> None:
    """As `remember`, for a name as it stands in the file (`[host]:port`, or a HostKeyAlias)."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        raise UsageError(f"cannot remember the host key: {error}", where=str(file), code="known-hosts") from error
    with os.fdopen(handle, "r+b", buffering=0) as out:
        fcntl.flock(out, fcntl.LOCK_EX)  # two commands may learn two devices at once
        if any(entry.key == key and not entry.marker for entry in lookup(name, [file])):
            return
        size = out.seek(0, os.SEEK_END)
        ends_well = size == 0 or os.pread(out.fileno(), 1, size - 1) == b"\n"
        line = ("" if ends_well else "\n") + key.line(name)
        try:
            out.write(line.encode())
            os.fsync(out.fileno())
        except OSError as error:
            raise UsageError(f"cannot remember the host key: {error}", where=str(file), code="known-hosts") from error


def _unknown(name: str, key: HostKey, files: Sequence[Path], device: str, about: Sequence[KnownKey]) -> DeviceError:
    authority = "; a @cert-authority is known for it, but certificates are not supported" if about else ""
    return DeviceError(
        f"the host key of {device} is not known",
        where=f"{name} shows {key.kind} {key.fingerprint}",
        expected=f"a line for {name} in {' or '.join(map(str, files)) or 'a known_hosts file'}{authority}",
        fix=f"compare the fingerprint with the device's own (ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub there), then: "
        f"{_accept(device)}",
        code="host-key-unknown",
    )


def _accept(device: str) -> str:
    return f"edgepack devices add NAME {shlex.quote(device)} --trust-on-first-use"


def _parse(line: str, name: str, file: Path, number: int) -> KnownKey | None:
    fields = line.split()
    if not fields or fields[0].startswith("#"):
        return None
    marker = fields.pop(0) if fields[0].startswith("@") else ""
    if len(fields) < 3 or not _matches(fields[0], name):  # noqa: PLR2004  # names, kind, key
        return None
    try:
        blob = base64.b64decode(fields[2], validate=True)
    except (binascii.Error, ValueError):
        return None  # as OpenSSH: a broken line vouches for nobody
    return KnownKey(HostKey(fields[1], blob), file, number, marker)


def _matches(names: str, name: str) -> bool:
    """Whether a line's first field (a hash, or patterns with * ? and !) means `name`."""
    if names.startswith("|1|"):
        return _hash_matches(names, name)
    matched = False
    for pattern in names.lower().split(","):
        # fnmatch alone would take "[host]:22" for a set of characters.
        regex = fnmatch.translate(pattern.lstrip("!").replace("[", "[[]"))
        if re.match(regex, name):
            if pattern.startswith("!"):
                return False
            matched = True
    return matched


def _hash_matches(field: str, name: str) -> bool:
    parts = field.split("|")
    if len(parts) != 4:  # noqa: PLR2004  # "", "1", salt, hash
        return False
    try:
        salt, wanted = base64.b64decode(parts[2]), base64.b64decode(parts[3])
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(hmac.new(salt, name.encode(), "sha1").digest(), wanted)
