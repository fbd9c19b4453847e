"""Print the shell's completion script."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    r"""Print the completion script for SHELL.

    \b
    bash:  eval "$(edgepack completion bash)"      in ~/.bashrc
    zsh:   eval "$(edgepack completion zsh)"       in ~/.zshrc
    fish:  edgepack completion fish > ~/.config/fish/completions/edgepack.fish
    """
    from click.shell_completion import get_completion_class

    from packager.cli.main import edgepack

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"click has no completion for {shell}")
    click.echo(kind(edgepack, {}, "edgepack", "_EDGEPACK_COMPLETE").source())
