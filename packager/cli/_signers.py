"""What the verbs that look at signatures share: their options, and a signature as a line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from agent.contract.archive import BundleReader
    from agent.contract.signatures import Trust, Verdict

NOT_CHECKED = "not checked"


def signer_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--allowed-signers and --revoked."""
    path = click.Path(path_type=Path)
    for option in (
        click.option("--revoked", type=path, help="Revoked keys: public keys, one a line, or an OpenSSH KRL."),
        click.option(
            "--allowed-signers",
            type=path,
            envvar="EDGEPACK_ALLOWED_SIGNERS",
            help="Who may sign: a file as in ssh-keygen(1), ALLOWED SIGNERS.",
        ),
    ):
        function = option(function)
    return function


def trust_of(allowed_signers: Path | None, revoked: Path | None) -> Trust | None:
    """The trust that the options state; None for none. Raises UsageError."""
    from agent.contract.errors import UsageError
    from packager.bundle.sign import load_trust

    if allowed_signers is None:
        if revoked is not None:
            raise UsageError("--revoked says nothing without --allowed-signers", fix="name the allowed signers, too")
        return None
    return load_trust(allowed_signers, revoked)


def judged(reader: BundleReader, trust: Trust | None) -> list[Verdict]:
    """The verdicts. Where nobody asked who it was, a host without ssh-keygen still shows the keys, as not checked."""
    from agent.contract.errors import DeviceError
    from agent.contract.signatures import Verdict, check_all
    from packager.bundle.sign import verdicts

    try:
        return verdicts(reader, trust)
    except DeviceError as error:
        if trust is not None:
            raise
        known = check_all(reader.signatures, reader.path.name)
        return [Verdict(one.fingerprint, one.key_type, NOT_CHECKED, reason=error.what) for one in known]


def line(verdict: Verdict) -> str:
    """A signature for people."""
    who = f"{verdict.principal}, " if verdict.principal else ""
    why = f": {verdict.reason}" if verdict.reason else ""
    return f"signed by {who}{verdict.fingerprint} ({verdict.key_type}): {verdict.status}{why}"
