"""Check that a bundle is whole."""

from __future__ import annotations

import click

from packager.cli._show import json_option, print_json


@click.command()
@click.argument("bundle")
@json_option
def command(bundle: str, *, as_json: bool) -> None:
    """Check every file of BUNDLE against its digest; exit code 7 when one is wrong."""
    from agent.contract.archive import BundleReader

    with BundleReader(bundle) as reader:
        reader.verify()
        digest, count = reader.digest, len(reader.manifest.files)
    if as_json:
        print_json({"bundle": bundle, "digest": digest, "files": count, "whole": True})
    else:
        click.echo(f"{bundle}: whole, {count} files, {digest}")
