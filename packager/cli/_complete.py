"""Shell completion of names."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click


def profiles(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Profile names."""
    from packager.profile import profile_names

    return [name for name in profile_names() if name.startswith(incomplete)]


def runtimes(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Runtime names."""
    from packager.registry import target_names

    return [name for name in target_names() if name.startswith(incomplete)]


def recipes(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Named recipes."""
    from packager.recipe import recipe_names

    return [name for name in recipe_names() if name.startswith(incomplete)]


def devices(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """`local` and the registered devices."""
    from packager.device.inventory import everything

    return [name for name in ["local", *everything()] if name.startswith(incomplete)]
