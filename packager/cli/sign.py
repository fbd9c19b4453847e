"""Sign a bundle with an SSH key."""

from __future__ import annotations

from pathlib import Path

import click

from packager.cli._show import json_option, print_json


@click.command()
@click.argument("bundles", metavar="BUNDLE...", nargs=-1, required=True)
@click.option(
    "--key",
    required=True,
    type=click.Path(path_type=Path),
    help="An SSH key: private, or public when an SSH agent holds the private part.",
)
@json_option
def command(bundles: tuple[str, ...], key: Path, *, as_json: bool) -> None:
    """Add a signature by KEY to each BUNDLE. The digest stays the same; a bundle may carry several signatures.

    Keys in an SSH agent or on a hardware token work as they do with ssh-keygen -Y sign, which makes the signature.
    """
    from packager.bundle.sign import sign

    rows = []
    for bundle in bundles:
        made = sign(Path(bundle), key)
        rows.append({"bundle": bundle, "fingerprint": made.fingerprint, "key_type": made.key_type, "entry": made.name})
        if not as_json:
            click.echo(f"{bundle}: signed by {made.fingerprint} ({made.key_type})")
    if as_json:
        print_json(rows)
