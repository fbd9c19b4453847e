"""Who vouches for a bundle: SSH signatures over its digest, kept beside the files that the digest counts.

A signature is an entry `signatures/HEX.sig` of the bundle, where HEX is the sha256 of the signer's public key; it is what
`ssh-keygen -Y sign -n edgepack-bundle` makes of the digest's text and a newline (the format: PROTOCOL.sshsig of OpenSSH).
Several may stand side by side. Whether one is good is asked of ssh-keygen, on host and device alike.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import os
import re
import shutil
import struct
import subprocess
import tempfile
from typing import Dict, List, Optional, Tuple

from agent.contract.errors import DeviceError, IntegrityError

NAMESPACE = "edgepack-bundle"
FOLDER = "signatures"
MAX_BYTES = 16 << 10
MAX_SIGNATURES = 16
MAX_SIGNERS_BYTES = 1 << 20
VALID, UNKNOWN, REVOKED, BAD = "valid", "unknown", "revoked", "bad"
_NAME = re.compile(r"^signatures/[0-9a-f]{64}\.sig\Z")
_ARMOUR = re.compile(rb"^-----BEGIN SSH SIGNATURE-----\r?\n([A-Za-z0-9+/=\r\n]+)-----END SSH SIGNATURE-----\r?\n?\Z")
_HASHES = ("sha256", "sha512")
_SECONDS = 20.0
_LOOK_IN = "/usr/bin:/usr/local/bin:/opt/bin"


@dataclasses.dataclass(frozen=True)
class Signature:
    """What a signature says of itself. `fingerprint` is the signer's key as OpenSSH shows it, `SHA256:...`."""

    name: str
    key_type: str
    fingerprint: str


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What ssh-keygen made of it: `status` is valid, unknown, revoked or bad; `principal` who it is, where it is valid."""

    fingerprint: str
    key_type: str
    status: str
    principal: str = ""
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Trust:
    """Whom a device believes. `allowed_signers` is such a file's text; `revoked` a list of public keys, or a KRL, in base64.

    With `signed_only` nothing runs that none of these has signed.
    """

    signed_only: bool = False
    allowed_signers: str = ""
    revoked: str = ""
    schema: str = "edgepack.trust/1"


def is_signature(name: str) -> bool:
    """Whether a bundle's entry is a signature, by its name."""
    return _NAME.match(name) is not None


def message(digest: str) -> bytes:
    """What is signed."""
    return digest.encode("ascii") + b"\n"


def parse(raw: bytes, where: str) -> Signature:
    """Reads a signature's public part. Raises IntegrityError, code "bad-signature", for what is none of ours."""
    found = _ARMOUR.match(raw) if len(raw) <= MAX_BYTES else None
    if found is None:
        raise _unreadable(where, "it is no armoured SSH signature of at most %d bytes" % MAX_BYTES)
    try:
        blob = base64.b64decode(found.group(1).replace(b"\r", b"").replace(b"\n", b""), validate=True)
        magic, version = struct.unpack(">6sI", blob[:10])
        key, rest = _string(blob[10:])
        namespace, rest = _string(rest)
        _, rest = _string(rest)
        algorithm, rest = _string(rest)
        _, rest = _string(rest)
        kind = _string(key)[0].decode("ascii")
    except (binascii.Error, struct.error, UnicodeDecodeError, ValueError) as error:
        raise _unreadable(where, str(error)) from error
    if magic != b"SSHSIG" or version != 1 or rest or not kind.isprintable():
        raise _unreadable(where, "it is not of version 1 of the format")
    if namespace != NAMESPACE.encode() or algorithm.decode("ascii", "replace") not in _HASHES:
        raise _unreadable(where, "it was made for %.80r, not for %r" % (namespace, NAMESPACE))
    found_digest = hashlib.sha256(key).digest()
    text = base64.b64encode(found_digest).decode("ascii").rstrip("=")
    return Signature(name="%s/%s.sig" % (FOLDER, found_digest.hex()), key_type=kind, fingerprint="SHA256:" + text)


def check_all(signatures: Dict[str, bytes], where: str) -> List[Signature]:
    """The bundle's signatures, read. Raises IntegrityError when one is not what its name says."""
    found = []
    for name, raw in sorted(signatures.items()):
        signature = parse(raw, "%s in %s" % (name, where))
        if signature.name != name:
            raise _unreadable("%s in %s" % (name, where), "it is another key's: %s" % signature.fingerprint)
        found.append(signature)
    return found


def verify(digest: str, signatures: Dict[str, bytes], trust: Optional[Trust] = None) -> List[Verdict]:
    """What each signature is worth; without `trust` only whether it is good, and then "unknown".

    Raises DeviceError, code "no-ssh-keygen", where ssh-keygen is missing or too old, IntegrityError for broken entries.
    """
    known = check_all(signatures, digest)
    if not known:
        return []
    program = find_ssh_keygen()
    try:
        with tempfile.TemporaryDirectory(prefix="edgepack-") as folder:
            return [_judge(program, folder, digest, one, signatures[one.name], trust) for one in known]
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeviceError("the signatures cannot be checked: %s" % error, where=digest, code="no-verify") from error


def require(digest: str, signatures: Dict[str, bytes], trust: Trust) -> List[Verdict]:
    """The verdicts, one of them valid. Raises IntegrityError: "unsigned", "revoked", "untrusted" or "bad-signature"."""
    if not signatures:
        raise IntegrityError(
            "the bundle is not signed, and only signed ones may run here",
            where=digest,
            expected="a signature by one of the allowed signers",
            fix="edgepack sign BUNDLE --key KEY, then push it again",
            code="unsigned",
        )
    verdicts = verify(digest, signatures, trust)
    if any(one.status == BAD for one in verdicts):
        code, what = "bad-signature", "a signature of the bundle does not fit its digest"
    elif any(one.status == VALID for one in verdicts):
        return verdicts
    elif any(one.status == REVOKED for one in verdicts):
        code, what = "revoked", "the key that signed the bundle has been revoked"
    else:
        code, what = "untrusted", "nobody who is allowed has signed the bundle"
    told = "; ".join("%s %s%s" % (v.fingerprint, v.status, " (%s)" % v.reason if v.reason else "") for v in verdicts)
    raise IntegrityError(
        what,
        where="%s: %s" % (digest, told),
        expected="a valid signature by one of the allowed signers",
        fix="have it signed by a key that is allowed (edgepack sign), or allow this one: edgepack devices trust",
        code=code,
    )


def find_ssh_keygen() -> str:
    """ssh-keygen that knows -Y. Raises DeviceError, code "no-ssh-keygen", that says which is missing."""
    path = shutil.which("ssh-keygen") or shutil.which("ssh-keygen", path=_LOOK_IN)
    what = "there is no ssh-keygen here"
    if path is not None:
        what = "%s is too old to verify signatures" % path
        try:
            # Older ones, and programs that only bear the name, answer with their usage.
            if "find-principals" in _run([path, "-Y", "find-principals"], b"")[1]:
                return path
        except (OSError, subprocess.TimeoutExpired) as error:
            what = "%s does not run: %s" % (path, error)
    raise DeviceError(
        what,
        expected="ssh-keygen of OpenSSH 8.2 or newer (Dropbear has none)",
        fix="install OpenSSH's client (Debian, Ubuntu: apt-get install openssh-client; OpenWrt: openssh-keygen)",
        code="no-ssh-keygen",
    )


def _judge(program: str, folder: str, digest: str, signature: Signature, raw: bytes, trust: Optional[Trust]) -> Verdict:
    def verdict(status: str, principal: str = "", reason: str = "") -> Verdict:
        return Verdict(signature.fingerprint, signature.key_type, status, principal, reason)

    files = [os.path.join(folder, name) for name in ("sig", "allowed", "revoked")]
    contents = [raw, b"", b""]
    if trust is not None:
        contents[1:] = [trust.allowed_signers.encode("utf-8"), _revoked(trust)]
    for path, content in zip(files, contents):
        with open(path, "wb") as file:
            file.write(content)
    sig, allowed, revoked = files
    common = ["-n", NAMESPACE, "-s", sig]
    status, said = _run([program, "-Y", "check-novalidate", *common], message(digest))
    if status != 0:
        return verdict(BAD, reason=said)
    if trust is None:
        return verdict(UNKNOWN)
    status, said = _run([program, "-Y", "find-principals", "-s", sig, "-f", allowed], b"", errors=False)
    principals = said.split("\n") if status == 0 and said else []
    if not principals:
        # An expired line is told on standard error, and so is a clock that is wrong.
        why = _run([program, "-Y", "find-principals", "-s", sig, "-f", allowed], b"")[1].replace(allowed, "line ")
        return verdict(UNKNOWN, reason=why)
    who = principals[0]
    asked = [program, "-Y", "verify", "-f", allowed, "-I", who, *common]
    status, said = _run([*asked, "-r", revoked], message(digest)) if contents[2] else _run(asked, message(digest))
    if status == 0:
        return verdict(VALID, who)
    good = bool(contents[2]) and _run(asked, message(digest))[0] == 0
    return verdict(REVOKED if good else UNKNOWN, who, said)


def _revoked(trust: Trust) -> bytes:
    try:
        return base64.b64decode(trust.revoked, validate=True)
    except (binascii.Error, ValueError) as error:
        raise IntegrityError("the list of revoked keys cannot be read: %s" % error, code="bad-trust") from error


def _run(argv: List[str], stdin: bytes, errors: bool = True) -> Tuple[int, str]:
    """Status, and what was said: printable, short. Not through a shell."""
    environment = {"LC_ALL": "C", "PATH": os.environ.get("PATH", _LOOK_IN), "HOME": "/"}
    done = subprocess.run(argv, input=stdin, capture_output=True, timeout=_SECONDS, env=environment, check=False)
    text = (done.stdout + (done.stderr if errors else b"")).decode("utf-8", "replace").strip()[:2000]
    return done.returncode, "".join(char if char.isprintable() or char == "\n" else "?" for char in text)


def _string(blob: bytes) -> Tuple[bytes, bytes]:
    (size,) = struct.unpack(">I", blob[:4])
    if len(blob) < 4 + size:
        raise ValueError("it is cut short")
    return blob[4 : 4 + size], blob[4 + size :]


def _unreadable(where: str, why: str) -> IntegrityError:
    return IntegrityError(
        "a signature of the bundle cannot be read: %s" % why,
        where=where,
        expected="what `edgepack sign` makes",
        fix="take the bundle from where it was built, and sign it again",
        code="bad-signature",
    )
