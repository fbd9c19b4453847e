"""The command's door: finds the verb's file, calls it, turns errors into messages and exit codes."""

from __future__ import annotations

import os
import pkgutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

_FOLDER = Path(__file__).parent
_INTERRUPTED = 130
_BUG = 1
_USAGE = 2


class Verbs(click.Group):
    """The verbs are the files of this folder; each is imported when it is called. Its help is its file's first line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The file names."""
        del ctx
        names = (module.name for module in pkgutil.iter_modules([str(_FOLDER)]))
        return sorted(name for name in names if not name.startswith("_") and name != "main")

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb's command, imported now."""
        if cmd_name not in self.list_commands(ctx):
            return None
        from importlib import import_module

        found: click.Command = import_module(f"packager.cli.{cmd_name}").command
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """An unknown verb is answered with the nearest."""
        if args and not args[0].startswith("-") and args[0] not in self.list_commands(ctx):
            from agent.contract.errors import nearest

            near = nearest(args[0], self.list_commands(ctx))
            hint = f" Did you mean {near!r}?" if near else ""
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Only the files' first lines are read."""
        rows = []
        for name in self.list_commands(ctx):
            with (_FOLDER / f"{name}.py").open(encoding="utf-8") as file:
                rows.append((name, file.readline().strip().strip('"')))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        from packager.version import __version__

        click.echo(f"edgepack {__version__}")
        ctx.exit()


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
def edgepack() -> None:
    """Packs a trained model for one device, pushes it over SSH, proves that it is right there, and measures it.

    \b
    edgepack build model.onnx --target raspberry-pi-5 --calibration samples.npz
    edgepack bench model-raspberry-pi-5.edgepack pi@kitchen
    """  # noqa: D301 - \b is click's mark for "do not wrap"


def run(arguments: Sequence[str]) -> int:
    """Runs one command line; its exit code."""
    try:
        result: Any = edgepack.main(list(arguments), prog_name="edgepack", standalone_mode=False)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("edgepack: interrupted", err=True)
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has seen enough. Python would complain again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - the last line of defence
        return _tell(error)
    return result if isinstance(result, int) else 0


def _tell(error: Exception) -> int:
    from agent.contract.errors import EdgepackError

    if os.environ.get("EDGEPACK_DEBUG"):
        import traceback

        traceback.print_exception(error)
    if isinstance(error, EdgepackError):
        click.echo(f"edgepack: {error}", err=True)
        return error.exit_code
    click.echo(
        f"edgepack: this is a bug: {type(error).__name__}: {error}\n"
        "  what to do: run it again with EDGEPACK_DEBUG=1 and report what it prints",
        err=True,
    )
    return _BUG


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> NoReturn:
    """The console script. SIGTERM cleans up like Ctrl-C."""
    signal.signal(signal.SIGTERM, _interrupt)
    sys.exit(run(sys.argv[1:]))
