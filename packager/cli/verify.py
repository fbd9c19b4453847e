"""Check that a bundle is whole, and who signed it."""

from __future__ import annotations

from pathlib import Path

import click

from packager.cli._show import json_option, print_json
from packager.cli._signers import judged, line, signer_options, trust_of


@click.command()
@click.argument("bundle")
@signer_options
@json_option
def command(bundle: str, allowed_signers: Path | None, revoked: Path | None, *, as_json: bool) -> None:
    """Check every file of BUNDLE against its digest, and its signatures; exit code 7 when one is wrong.

    With --allowed-signers one of them must have signed it; without, a signature is only checked to fit the bundle.
    """
    from agent.contract import codec, signatures
    from agent.contract.archive import BundleReader

    trust = trust_of(allowed_signers, revoked)
    with BundleReader(bundle) as reader:
        reader.verify()
        digest, count = reader.digest, len(reader.manifest.files)
        found = judged(reader, trust)
        if trust is not None or any(one.status == signatures.BAD for one in found):
            signatures.require(digest, reader.signatures, trust or signatures.Trust())
    if as_json:
        document = {"bundle": bundle, "digest": digest, "files": count, "whole": True}
        print_json({**document, "signatures": codec.encode(found)})
        return
    click.echo(f"{bundle}: whole, {count} files, {digest}")
    for one in found:
        click.echo(line(one))
    if not found:
        click.echo("not signed")
