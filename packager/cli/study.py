"""Try every technique on your own model and device: one table, one page, a verdict per row."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from packager.cli import _complete
from packager.cli._show import json_option, print_json, progress, table

if TYPE_CHECKING:
    from packager.study.run import Study


@click.command()
@click.argument("model")
@click.option("--target", "-t", required=True, help="The device's profile.", shell_complete=_complete.profiles)
@click.option("--device", "-d", help="Where to measure: local, user@host, a registered name [not measured].")
@click.option("--calibration", "-c", required=True, help="Samples for INT8: .npz, a folder, file.py:function.")
@click.option("--eval", "-e", required=True, help="Samples to score on: .npz with inputs by name and `labels`.")
@click.option("--metric", help="top1, top5, mse, cosine, agreement or FILE.py:score [top1; agreement without labels].")
@click.option("--train", help="Training data for pruning: file.py:function or .npz [one shot, no fine-tuning].")
@click.option("--epochs", type=click.IntRange(1, 1000), default=1, show_default=True, help="After each pruning step.")
@click.option(
    "--sparsity",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.5,
    show_default=True,
    help="The share of weights or channels that the pruned rows lose.",
)
@click.option("--max-drop", type=float, metavar="POINTS", help="The most that may be lost, in points of 0.01 [1.0].")
@click.option("--max-drop-relative", type=float, metavar="PERCENT", help="In percent of the original's score [mse: 5].")
@click.option("--shape", "shapes", multiple=True, metavar="NAME=1x3x224x224", help="Fix an input's shape (repeatable).")
@click.option("--seconds", type=click.FloatRange(0.1, 3600), default=2.0, show_default=True, help="Measured per row.")
@click.option("--threads", type=click.IntRange(0, 1024), default=1, show_default=True, help="Of the runtime.")
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="Write the page (HTML) there.")
@json_option
def command(*, output: Path | None, as_json: bool, **options: Any) -> None:
    """The recommended order (ONNX, FP16, INT8 dynamic, INT8, pruning, the device's runtimes) tried step by step on MODEL.

    Each row is compared with the original by size, latency, accuracy and parity. A technique that fails keeps its row.
    """
    from packager import page_frame
    from packager.bundle.write import check_writable
    from packager.study.page import render
    from packager.study.run import StudyOptions, run_study

    if output is not None:
        check_writable(output)
    with progress() as say:
        study = run_study(StudyOptions(**options), say)
    if output is not None:
        page_frame.write(output, render(study))
    if as_json:
        print_json(study.document())
        return
    _show(study)


def _show(study: Study) -> None:
    from packager.study.page import cells

    where = f" on {study.machine}" if study.machine else ""
    click.echo(f"{study.name} for {study.options.target}{where}; {study.metric} on {study.n} samples")
    rows = [[one.row.label, *cells(one)] for one in study.rows]
    table(["technique", "size", "latency", "speed-up", study.metric, "parity"], rows, right=[1, 2, 3, 4])
    for one in study.rows[1:]:
        click.echo(one.verdict + (f" ({one.row.note})" if one.row.note and not one.row.error else ""))
    click.echo(study.advice)
