"""The kinds of devices that bundles are made for."""

from __future__ import annotations

import click

from packager.cli import _complete
from packager.cli._show import json_option, print_json, table


@click.group()
def command() -> None:
    """The kinds of devices that bundles are made for."""


@command.command("list")
@json_option
def list_(*, as_json: bool) -> None:
    """All profiles, with their default runtime and recipe."""
    from packager.profile import load_profile, profile_names
    from packager.registry import target_names

    profiles = [load_profile(name) for name in profile_names()]
    ready = target_names()
    if as_json:
        print_json(
            [
                {
                    "name": one.name,
                    "title": one.title,
                    "kind": one.kind,
                    "runtime": one.default.runtime,
                    "recipe": one.default.recipe,
                    "runtimes": list(one.runtimes),
                    "buildable": [name for name in one.runtimes if name in ready],
                }
                for one in profiles
            ]
        )
        return
    rows = [
        [
            one.name,
            one.title,
            one.cpu.model,
            one.memory.ram,
            f"{one.default.runtime} {one.default.recipe}" + ("" if one.default.runtime in ready else " (later)"),
            ", ".join(name for name in one.runtimes if name in ready) or "none yet",
        ]
        for one in profiles
    ]
    table(["profile", "device", "cpu", "memory", "default", "builds now"], rows)


@command.command()
@click.argument("name", shell_complete=_complete.profiles)
@json_option
def show(name: str, *, as_json: bool) -> None:
    """Everything that a profile says (a name, or the path of a TOML file)."""
    from packager.profile import describe, load_profile

    document = describe(load_profile(name))
    if as_json:
        print_json(document)
        return
    for line in _lines(document):
        click.echo(line)


def _lines(document: dict[str, object], indent: str = "") -> list[str]:
    lines = []
    for key, value in document.items():
        if isinstance(value, dict):
            lines += [f"{indent}{key}:", *_lines(value, indent + "  ")]
        else:
            shown = ", ".join(str(item) for item in value) if isinstance(value, list) else value
            lines.append(f"{indent}{key}: {shown}")
    return lines
