"""Unpack a bundle into a folder."""

from __future__ import annotations

from pathlib import Path

import click

from packager.cli._show import json_option, print_json


@click.command()
@click.argument("bundle")
@click.argument("folder", type=click.Path(path_type=Path))
@json_option
def command(bundle: str, folder: Path, *, as_json: bool) -> None:
    """Unpack BUNDLE into FOLDER (new or empty), every file checked."""
    import os
    import shutil

    from agent.contract.archive import BundleReader
    from agent.contract.errors import UsageError

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not empty", expected="a new or empty folder", code="not-empty")
    # Into a folder beside it first, so that a broken bundle leaves nothing half-unpacked.
    part = folder.with_name(f".{folder.name}.part-{os.getpid()}")
    with BundleReader(bundle) as reader:
        try:
            reader.extract(part)
            part.replace(folder)
        except OSError as error:
            raise UsageError(f"the bundle cannot be unpacked: {error}", where=str(folder)) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
        digest, model = reader.digest, reader.manifest.model
    if as_json:
        print_json({"folder": str(folder), "digest": digest, "model_file": model})
    else:
        click.echo(f"{folder / model}")
