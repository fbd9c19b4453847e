"""The recipes that ship with edgepack, and what a recipe file means."""

from __future__ import annotations

from typing import Any

import click

from packager.cli import _complete
from packager.cli._show import json_option, print_json, table


@click.group()
def command() -> None:
    """What can be done to a model's graph and numbers."""


@command.command("list")
@json_option
def list_(*, as_json: bool) -> None:
    """Every named recipe; decodable names (static_wi8_ai8, dynamic_wi8_afp32) are taken beside them."""
    from packager.recipe import load_recipe, recipe_names

    recipes = [load_recipe(name) for name in recipe_names()]
    if as_json:
        print_json([{"name": one.name, "steps": _kinds(one), "calibration": one.needs_calibration} for one in recipes])
        return
    rows = [[one.name, " -> ".join(_kinds(one)), "yes" if one.needs_calibration else "no"] for one in recipes]
    table(["recipe", "steps", "calibration data"], rows)
    click.echo(
        "Decodable names are taken, too: static_wi8_ai8, static_wu8_au8_pertensor, static_wi8_ai16, dynamic_wi8_afp32."
    )


@command.command()
@click.argument("name", shell_complete=_complete.recipes)
@json_option
def show(name: str, *, as_json: bool) -> None:
    """Everything that a recipe says (a name, a decodable name, or the path of a TOML file); nothing is run."""
    from agent.contract import codec
    from packager.recipe import load_recipe

    document = codec.encode(load_recipe(name))
    if as_json:
        print_json(document)
        return
    for key, value in document.items():
        if key not in ("steps", "schema") and (key, value) != ("qat", ""):  # without it nothing is trained
            click.echo(f"{key}: {_shown(value)}")
    for number, step in enumerate(document["steps"], 1):
        told = ", ".join(
            f"{key} {_shown(value)}" for key, value in step.items() if key != "do" and value not in (None, [], {})
        )
        click.echo(f"step {number}: {step['do']}{': ' + told if told else ''}")


def _kinds(recipe: Any) -> list[str]:
    kinds = [step["do"] for step in recipe.steps if step["do"] not in ("quantize", "convert")]
    return [*kinds, recipe.precision]


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return str(value) if value != "" else "(the target's choice)"
