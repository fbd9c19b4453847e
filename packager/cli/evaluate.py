"""Score a model or a bundle on labelled samples."""

from __future__ import annotations

import click

from packager.cli._show import json_option, print_json, progress, show_findings


@click.command()
@click.argument("model")
@click.option("--eval", "data", required=True, metavar="DATA.npz", help="Samples by input name, and `labels`.")
@click.option("--metric", help="top1, top5, mse, cosine, agreement or FILE.py:score [top1; agreement without labels].")
@click.option("--original", help="The model that `agreement` compares a bundle with.")
@click.option("--shape", "shapes", multiple=True, metavar="NAME=1x3x224x224", help="Fix an input's shape (repeatable).")
@json_option
def command(model: str, data: str, metric: str | None, original: str | None, shapes: tuple[str, ...],
            *, as_json: bool) -> None:  # fmt: skip
    """Score MODEL_OR_BUNDLE on the samples in DATA.npz, on this machine, with the 95 % interval of the score.

    A bundle is run as its device would run it, as far as this machine's kernels allow; where they do not, it says so.
    """
    from packager.accuracy.evaluate import evaluate
    from packager.shapes import parse_shapes

    with progress() as say:
        say(f"running {model}")
        score, findings = evaluate(model, data, metric, original=original, shapes=parse_shapes(shapes))
    if as_json:
        print_json(score.document())
        show_findings(findings, err=True)
        return
    from packager.accuracy.metric import number

    told = "unknown" if score.interval is None else f"{number(score.interval[0])} to {number(score.interval[1])}"
    click.echo(f"{score.metric} {number(score.score)} on {score.n} samples (95 %: {told}, {score.method})")
    show_findings(findings)
