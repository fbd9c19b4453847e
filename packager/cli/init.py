"""Write an edgepack.toml beside a model."""

from __future__ import annotations

from pathlib import Path

import click

from packager.cli import _complete


@click.command()
@click.argument("model")
@click.option(
    "--target",
    "-t",
    default="linux-arm64",
    show_default=True,
    help="The target built by default.",
    shell_complete=_complete.profiles,
)
@click.option("--force", is_flag=True, help="Overwrite an edgepack.toml that is there.")
def command(model: str, target: str, *, force: bool) -> None:
    """Write edgepack.toml for MODEL in the current folder, so that `edgepack build` needs no arguments."""
    from agent.contract.errors import UsageError
    from packager.pipeline import find_source
    from packager.profile import load_profile
    from packager.project_file import NAME, starter
    from packager.shapes import show

    path = Path(NAME)
    if path.exists() and not force:
        raise UsageError(
            f"{NAME} is here already", where=str(path.resolve()), fix="--force overwrites it", code="exists"
        )
    load_profile(target)
    artifact = find_source(model).open(model, {})
    free = [
        (spec.name, show(spec.shape)) for spec in artifact.inputs if any(isinstance(size, str) for size in spec.shape)
    ]
    path.write_text(starter(model, free, target), encoding="utf-8")
    click.echo(f"{path}: edgepack build makes {model} for {target}")
