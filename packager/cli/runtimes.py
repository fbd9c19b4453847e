"""The runtimes that bundles can be built for."""

from __future__ import annotations

import click

from packager.cli._show import json_option, print_json, table


@click.group()
def command() -> None:
    """The runtimes that bundles can be built for."""


@command.command("list")
@json_option
def list_(*, as_json: bool) -> None:
    """Runtimes, their recipes, and the sources that reach them."""
    from packager import registry

    rows = []
    for name in registry.target_names():
        target = registry.target(name)
        sources = [source.format for source in registry.sources() if name in registry.reachable(source.format)]
        rows.append(
            {
                "name": name,
                "title": target.title,
                "format": target.format,
                "recipes": list(target.recipes),
                "sources": sources,
                "extra": target.extra,
            }
        )
    if as_json:
        print_json(rows)
        return
    table(
        ["runtime", "format", "recipes", "sources"],
        [[str(r["name"]), str(r["format"]), ", ".join(r["recipes"]), ", ".join(r["sources"])] for r in rows],
    )
