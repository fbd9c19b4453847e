"""What `activate` and `rollback` say."""

from __future__ import annotations

from typing import Any

import click

from packager.cli._show import show_findings


def show(told: dict[str, Any]) -> None:
    """The slot after the change."""
    from agent.contract import codec
    from agent.contract.finding import Finding

    click.echo(line(told))
    click.echo(f"    {told['path']}")
    show_findings([codec.decode(Finding, one) for one in told["findings"]])


def line(told: dict[str, Any]) -> str:
    """The same in short."""
    slot, replaced = told["slot"], told["replaced"]
    current = str(slot["current"])[:19]
    if not told["checks"]:
        return f"{told['device']}: slot {slot['name']} runs {current}, unchanged"
    was = f", was {replaced[:19]}" if replaced else ""
    return f"{told['device']}: slot {slot['name']} runs {current}{was} ({', '.join(told['checks'])} passed)"
