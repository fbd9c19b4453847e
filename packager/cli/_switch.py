"""What `activate` and `rollback` say."""

from __future__ import annotations

from typing import Any

import click

from packager.cli._show import print_json, show_findings


def show(device: str, done: dict[str, Any], *, as_json: bool) -> None:
    """The slot after the change."""
    from agent.contract import codec
    from agent.contract.finding import Finding

    if as_json:
        print_json({"device": device, **done})
        return
    slot, replaced = done["slot"], done["replaced"]
    was = f", was {replaced[:19]}" if replaced else ""
    click.echo(f"{device}: slot {slot['name']} runs {slot['current'][:19]}{was} ({', '.join(done['checks'])} passed)")
    click.echo(f"    {done['path']}")
    show_findings([codec.decode(Finding, one) for one in done["findings"]])
