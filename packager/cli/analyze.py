"""Show where INT8 loses: what each layer costs alone."""

from __future__ import annotations

from pathlib import Path

import click

from packager.cli import _complete
from packager.cli._show import json_option, print_json, progress, table


@click.command()
@click.argument("model")
@click.option("--calibration", "-c", required=True, help="Samples for the ranges: .npz, a folder, file.py:function.")
@click.option("--eval", "data", metavar="DATA.npz", help="Samples by input name, and `labels`: adds the points lost.")
@click.option("--metric", help="top1, top5, mse, cosine, agreement or FILE.py:score [top1; agreement without labels].")
@click.option(
    "--target",
    "-t",
    help="The device whose INT8 is analysed [this machine's profile].",
    shell_complete=_complete.profiles,
)
@click.option("--runtime", help="Another runtime than the profile's own.", shell_complete=_complete.runtimes)
@click.option("--recipe", "-r", help="The INT8 recipe [int8].", shell_complete=_complete.recipes)
@click.option("--shape", "shapes", multiple=True, metavar="NAME=1x3x224x224", help="Fix an input's shape (repeatable).")
@click.option("--layer", "only", multiple=True, metavar="NAME", help="Only this layer (repeatable).")
@click.option(
    "--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="Write the plot to this .html file."
)
@json_option
def command(
    model: str,
    calibration: str,
    data: str | None,
    metric: str | None,
    target: str | None,
    runtime: str | None,
    recipe: str | None,
    shapes: tuple[str, ...],
    only: tuple[str, ...],
    output: Path | None,
    *,
    as_json: bool,
) -> None:
    """Quantise each layer of MODEL alone and tell what that costs, worst first.

    The signal over the noise in the outputs comes from calibration samples, the points lost from the evaluation set (256 of
    its samples where the metric is a mean over samples). The worst output band is told apart: a whole tensor hides a dead one.
    """
    from packager import page_frame
    from packager.accuracy.analyze import analyze
    from packager.accuracy.plot import drop_words, page, unit_words
    from packager.bundle.write import check_writable
    from packager.demo import host_profile
    from packager.shapes import parse_shapes

    if output is not None:
        check_writable(output)
    with progress() as say:
        found = analyze(
            model,
            calibration,
            target=target or host_profile(),
            runtime=runtime,
            recipe=recipe,
            data=data,
            metric=metric,
            shapes=parse_shapes(shapes),
            only=only,
            progress=say,
        )
    document = found.document()
    if output is not None:
        page_frame.write(output, page(Path(model).name, document))
    if as_json:
        print_json(document)
        return
    whole, unit = document["whole"], unit_words(document)
    of = f" of {document['metric']}" if unit.startswith("points") else ""
    lost = "" if whole["drop"] is None else f"{drop_words(whole['drop'], document)} {unit.replace(' lost', of)} lost, "
    click.echo(
        f"everything in INT8: {lost}{whole['sqnr_db']} dB; "
        f"worst output band {whole['worst_band']}: {whole['worst_band_sqnr_db']} dB"
    )
    rows = [
        [
            row["name"],
            row["operator"],
            "-" if row["drop"] is None else drop_words(row["drop"], document),
            "-" if row["sqnr_db"] is None else f"{row['sqnr_db']:.1f}",
            f"{row['worst_band']} {row['worst_band_sqnr_db']}" if row["worst_band"] else row["broken"][:60],
            f"{row['macs'] / 1e6:.3f}",
            str(row["weights"]),
        ]
        for row in document["layers"]
    ]
    table(
        ["layer alone", "operator", unit.removesuffix(" lost"), "dB", "worst band dB", "M mult-adds", "weights"],
        rows,
        right=[2, 3, 5, 6],
    )
    if output is not None:
        click.echo(f"plot: {output}")
