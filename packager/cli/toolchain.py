"""Converters in environments of their own: see them, install them, remove them."""

from __future__ import annotations

import click

from packager.cli._show import json_option, mb, print_json, progress, table


@click.group()
def command() -> None:
    """Converters whose dependencies exclude edgepack's own, each in an environment of its own.

    A build installs what it needs by itself; these commands do it beforehand, or undo it.
    """


@command.command("list")
@json_option
def list_(*, as_json: bool) -> None:
    """Every converter, installed or not."""
    from packager import toolchain

    found = toolchain.listed()
    if as_json:
        print_json(
            [
                {
                    "name": one.tool.name,
                    "what": one.tool.what,
                    "requirements": list(one.tool.requirements),
                    "installed": bool(one.python),
                    "python": one.python,
                    "size_bytes": one.size_bytes,
                }
                for one in found
            ]
        )
        return
    rows = [[one.tool.name, one.tool.what, mb(one.size_bytes) if one.python else "not installed"] for one in found]
    table(["name", "what", "size"], rows)


@command.command()
@click.argument("name")
@click.option("--python", default="", help="The interpreter to make the environment with [found on PATH].")
def install(name: str, python: str) -> None:
    """Install a converter."""
    from packager import toolchain

    with progress() as say:
        made = toolchain.install(name, say, python)
    click.echo(f"{name}: {made.folder}")


@command.command()
@click.argument("name")
def remove(name: str) -> None:
    """Delete a converter's environment."""
    from packager import toolchain

    click.echo(f"{name}: {'removed' if toolchain.remove(name) else 'was not installed'}")
