"""Signs bundles with ssh-keygen: a key file, a key of the SSH agent's, or one that never leaves its hardware."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

from agent.contract import signatures
from agent.contract.archive import BundleReader
from agent.contract.errors import IntegrityError, UsageError

_EPOCH = (1980, 1, 1, 0, 0, 0)


def sign(bundle: Path, key: Path) -> signatures.Signature:
    """Adds this key's signature to the bundle file, in one step; its digest stays what it was.

    `key` is a private key, or a public one whose private part an SSH agent holds. A bundle that the key has signed already
    is left alone. Raises UsageError, IntegrityError for a bundle that is not whole, DeviceError without ssh-keygen.
    """
    with BundleReader(bundle) as reader:
        reader.verify()
        digest, have = reader.digest, reader.signatures
    raw = _made(digest, key)
    signature = signatures.parse(raw, str(key))
    (verdict,) = signatures.verify(digest, {signature.name: raw})
    if verdict.status == signatures.BAD:
        raise IntegrityError("ssh-keygen made a signature that it does not accept", where=str(key))
    if signature.name in have:
        return signature
    if len(have) >= signatures.MAX_SIGNATURES:
        raise UsageError(f"the bundle has {len(have)} signatures", expected=f"at most {signatures.MAX_SIGNATURES}")
    _append(bundle, signature.name, raw)
    return signature


def load_trust(allowed_signers: Path, revoked: Path | None = None, *, signed_only: bool = False) -> signatures.Trust:
    """The trust that these files state. Raises UsageError when one cannot be read."""
    allowed = _read(allowed_signers, "the allowed signers")
    try:
        text = allowed.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"the allowed signers are not text: {error}", where=str(allowed_signers)) from error
    gone = base64.b64encode(_read(revoked, "the revoked keys")).decode() if revoked else ""
    return signatures.Trust(signed_only=signed_only, allowed_signers=text, revoked=gone)


def verdicts(bundle: BundleReader, trust: signatures.Trust | None) -> list[signatures.Verdict]:
    """What the bundle's signatures are worth here."""
    return signatures.verify(bundle.digest, bundle.signatures, trust)


def _read(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(signatures.MAX_SIGNERS_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{what} cannot be read: {error}", where=str(path), code="no-file") from error
    if len(raw) > signatures.MAX_SIGNERS_BYTES:
        raise UsageError(f"{what} take more than {signatures.MAX_SIGNERS_BYTES} bytes", where=str(path))
    return raw


def _made(digest: str, key: Path) -> bytes:
    if not key.is_file():
        raise UsageError(
            "there is no such key",
            where=str(key),
            expected="an SSH key: a private one, or a public one whose private part the SSH agent holds",
            fix="make one: ssh-keygen -t ed25519 -f KEY",
            code="no-key",
        )
    program = signatures.find_ssh_keygen()
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "digest"
        text.write_bytes(signatures.message(digest))
        # A passphrase or a touch is asked for on the terminal by ssh-keygen itself: neither passes through here.
        argv = [program, "-Y", "sign", "-f", str(key), "-n", signatures.NAMESPACE, str(text)]
        done = subprocess.run(argv, capture_output=True, check=False)
        made = text.with_suffix(".sig")
        if done.returncode != 0 or not made.is_file():
            raise UsageError(
                f"ssh-keygen did not sign: {done.stderr.decode('utf-8', 'replace').strip()[-500:]}",
                where=str(key),
                fix="see that the key is yours (mode 0600), its passphrase right, or that `ssh-add -l` lists it",
                code="not-signed",
            )
        return made.read_bytes()


def _append(bundle: Path, name: str, raw: bytes) -> None:
    """A copy with one entry more takes the bundle's place."""
    try:
        handle, name_ = tempfile.mkstemp(dir=bundle.parent, prefix=f".{bundle.name}.", suffix=".part")
        os.close(handle)
        part = Path(name_)
        try:
            shutil.copyfile(bundle, part)
            shutil.copymode(bundle, part)
            with zipfile.ZipFile(part, "a", zipfile.ZIP_STORED) as archive:
                entry = zipfile.ZipInfo(name, date_time=_EPOCH)
                entry.external_attr, entry.create_system = 0o100644 << 16, 3
                archive.writestr(entry, raw)
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(bundle)
        finally:
            with contextlib.suppress(FileNotFoundError):
                part.unlink()
    except OSError as error:
        raise UsageError(f"the signed bundle cannot be written: {error}", where=str(bundle)) from error
