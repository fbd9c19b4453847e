"""Whom this device believes: ROOT/trust.json, one document, so that a rotation of keys is one rename."""

from __future__ import annotations

from pathlib import Path

from agent.contract import archive, codec, signatures
from agent.contract.errors import DeviceError, UsageError
from agent.contract.signatures import Trust
from agent.disk import disk_errors, write_atomic

_NAME = "trust.json"
_MOST = 8 << 20


def load(root: Path) -> Trust:
    """The trust as it is set; everyone's bundles where nothing is. One that cannot be read is an error, never that."""
    try:
        with open(str(root / _NAME), "rb") as file:
            raw = file.read(_MOST)
    except FileNotFoundError:
        return Trust()
    except OSError as error:
        raise DeviceError("cannot read whom to trust: %s" % error, where=str(root / _NAME), code="trust") from error
    return codec.loads(Trust, raw, source=str(root / _NAME))


def save(root: Path, trust: Trust) -> None:
    """Sets it, on the disk when this returns. Raises UsageError, and DeviceError where nothing could be verified."""
    if len(trust.allowed_signers) + len(trust.revoked) > 2 * signatures.MAX_SIGNERS_BYTES:
        raise UsageError("the allowed signers take more than %d bytes" % signatures.MAX_SIGNERS_BYTES)
    if trust.signed_only:
        if not trust.allowed_signers.strip():
            what = "a device that runs signed bundles only needs to know who may sign"
            raise UsageError(what, fix="name them: --allowed-signers FILE", code="no-signers")
        signatures.find_ssh_keygen()
    with disk_errors(root):
        write_atomic(root / _NAME, codec.dumps(trust).encode("utf-8"))


def require(root: Path, folder: Path, digest: str) -> None:
    """On a device that runs signed bundles only: raises IntegrityError unless an allowed signer signed this one, and
    DeviceError where that cannot be found out.
    """
    trust = load(root)
    if trust.signed_only:
        signatures.require(digest, archive.read_signatures(folder), trust)
