"""Build a bundle for one device from a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from packager.cli import _complete
from packager.cli._show import json_option, mb, print_json, progress, show_findings, table

if TYPE_CHECKING:
    from packager.pipeline import Request


@click.command()
@click.argument("model", required=False)
@click.option(
    "--target",
    "-t",
    help="The device's profile: a name (edgepack profiles list) or a TOML file.",
    shell_complete=_complete.profiles,
)
@click.option("--runtime", help="Another runtime than the profile's own.", shell_complete=_complete.runtimes)
@click.option(
    "--recipe",
    "-r",
    help="fp32, fp16, int8-dynamic, int8, int16x8, or a TOML file [the profile's].",
    shell_complete=_complete.recipes,
)
@click.option("--calibration", "-c", help="Samples for INT8: .npz, a folder, file.py:function, or `random`.")
@click.option("--shape", "shapes", multiple=True, metavar="NAME=1x3x224x224", help="Fix an input's shape (repeatable).")
@click.option("--image-size", help="For a folder of pictures: 224 or 224x192 (height x width).")
@click.option("--image-mean", help="Mean of each channel, pixels in 0..1: 0.485,0.456,0.406.")
@click.option("--image-std", help="Standard deviation of each channel: 0.229,0.224,0.225.")
@click.option(
    "--layout",
    type=click.Choice(["nhwc", "nchw", "keep"]),
    help="Of image inputs and outputs [TFLite: nhwc].",
)
@click.option("--io", type=click.Choice(["int8", "float"]), help="Inputs and outputs of TFLite INT8 [int8].")
@click.option("--output-names", help="Names for a PyTorch model's outputs, separated by commas.")
@click.option(
    "--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="The bundle's file [NAME-PROFILE.edgepack]."
)
@click.option("--bytecode", type=int, help="PyTorch Lite: the bytecode version that the app's runtime takes (4 to 8).")
@click.option(
    "--workspace-mb", type=click.IntRange(min=32), help="TensorRT: the builder's workspace at most [the profile's]."
)
@click.option("--dla", type=click.IntRange(min=0), help="TensorRT: the DLA core that computes, fp16 only [the GPU].")
@click.option("--labels", metavar="[OUTPUT=]FILE", help="Android: a label a line, written into the .tflite.")
@click.option("--min-runtime", metavar="VERSION", help="TFLite: the oldest LiteRT that the model must run on.")
@click.option("--check/--no-check", default=True, help="Compare with the original on the host before writing.")
@click.option("--eval", metavar="DATA.npz", help="Samples by input name, and `labels`: the accuracy before and after.")
@click.option("--test", metavar="DATA.npz", help="More of them, which the search for accuracy never sees.")
@click.option("--metric", help="top1, top5, mse, cosine, agreement or FILE.py:score [top1; agreement without labels].")
@click.option("--max-drop", type=float, metavar="POINTS", help="The most that may be lost, in points of 0.01 [1.0].")
@click.option("--max-drop-relative", type=float, metavar="PERCENT", help="In percent of the original's score [mse: 5].")
@click.option(
    "--allow-drop",
    is_flag=True,
    help="Write the bundle although it lost more, or is far from the original on the golden inputs.",
)
@click.option("--search-minutes", type=float, metavar="M", help="Bounds the search for INT8 within the budget [20].")
@click.option("--dry-run", is_flag=True, help="Print the plan and write nothing.")
@json_option
def command(*, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Build a bundle for one device.

    MODEL is an .onnx, .tflite, .pt2 or TorchScript file, or file.py:factory or package.module:factory that returns an
    nn.Module or (module, example_inputs). Without MODEL the project file edgepack.toml says what to build.
    """
    import tempfile

    from packager import pipeline

    request = _request(options)
    with progress() as say, tempfile.TemporaryDirectory(prefix="edgepack-build-") as folder:
        if dry_run:
            prepared = pipeline.prepare(request, Path(folder), say)
        else:
            built = pipeline.run(request, say)
    if dry_run:
        _show_plan(prepared.document(), as_json=as_json)
        return
    if as_json:
        print_json(built.document())
        return
    manifest = built.manifest
    before, after = manifest.source.size_bytes, manifest.files[manifest.model].size
    click.echo(f"{built.bundle}  {mb(built.size_bytes)}  {built.digest}")
    click.echo(
        f"  {manifest.name} for {manifest.target}: {manifest.runtime.name} {manifest.recipe['name']}, "
        f"model {mb(before)} -> {mb(after)} ({after / before:.0%})"
    )
    for step in manifest.steps:
        told = ", ".join(f"{key} {value}" for key, value in step.options.items())
        click.echo(f"  {step.name} ({step.tool}){': ' + told if told else ''}")
    _show_accuracy(manifest.facts)
    for report in built.reports:
        if "before" in report:
            click.echo(f"  {report['step']}: {_weights(report['before'], report['after'])}")
        if "verdict" in report:
            click.echo(f"  {report['step']}: {report['verdict']}")
    show_findings(manifest.findings)


def _weights(before: dict[str, Any], after: dict[str, Any]) -> str:
    """What a step made of the weights."""
    return (
        f"{before['parameters']} -> {after['parameters']} parameters, "
        f"{before['sparsity']:.0%} -> {after['sparsity']:.0%} zeros, "
        f"{before['macs'] / 1e6:.3g} M -> {after['macs'] / 1e6:.3g} M multiply-adds, "
        f"{mb(before['file_bytes'])} -> {mb(after['file_bytes'])}, "
        f"compressed {mb(before['compressed_bytes'])} -> {mb(after['compressed_bytes'])}"
    )


def _show_accuracy(facts: dict[str, Any]) -> None:
    told, share = facts.get("accuracy"), facts.get("int8_share")
    if told:
        from packager.accuracy.metric import number

        per, unit = _unit(told)
        interval = told["drop_interval"]
        sure = f", 95 %: {interval[0] * per:+.2f} to {interval[1] * per:+.2f}" if interval else ""
        sure += f"; {told['budget']} allowed" if unit == "%" else ""
        if "source" in told:
            click.echo(f"  {told['metric']} of the source, before the recipe's steps: {number(told['source'])}")
        click.echo(
            f"  {told['metric']} {number(told['original'])} -> {number(told['bundle'])} on {told['n']} {told['samples']} "
            f"samples ({told['drop_points'] * per:+.2f} {unit} lost{sure})"
        )
    if share:
        click.echo(f"  in INT8: {share['macs']:.1%} of the multiply-adds, {share['weights']:.1%} of the weights")
    for step in facts.get("search", []) if len(facts.get("search", [])) > 1 else []:
        if step.get("nothing_to_do"):
            bought = "changes nothing in this model"
        elif "sqnr_db" in step:
            bought = f"{step['sqnr_db']:.1f} dB of signal over noise{'' if step['kept'] else ', not kept'}"
        else:
            bought = step.get("failed") or f"{_step_lost(step, facts)} lost, {step['int8_share']['macs']:.1%} in INT8"
        click.echo(f"    {step['step']}: {bought}")


def _unit(told: dict[str, Any]) -> tuple[float, str]:
    """What a point is in the unit of the budget, and that unit."""
    return (1 / abs(told["original"]), "%") if "%" in told["budget"] else (1.0, "points")


def _step_lost(step: dict[str, Any], facts: dict[str, Any]) -> str:
    key = "drop_percent" if _unit(facts["accuracy"])[1] == "%" else "drop_points"
    return f"{step[key]:+.2f} {'%' if key == 'drop_percent' else 'points'}"


def _request(options: dict[str, Any]) -> Request:
    from packager.images import parse_preprocessing
    from packager.pipeline import Request
    from packager.project_file import fill

    preprocessing = parse_preprocessing(*(options.pop(f"image_{word}") for word in ("size", "mean", "std")))
    names = tuple(name.strip() for name in (options.pop("output_names") or "").split(",") if name.strip())
    options |= {key: options[key] or "" for key in ("layout", "io")}
    own = {name: options.pop(name) for name in ("bytecode", "labels", "min_runtime", "workspace_mb", "dla")}
    target_options = {name: value for name, value in own.items() if value is not None}
    filled = fill(options)
    return Request(**filled, target_options=target_options, preprocessing=preprocessing, output_names=names)


def _show_plan(document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    click.echo(
        f"{document['model']} ({document['format']}) for {document['target']}: "
        f"{document['runtime']} {document['recipe']} -> {document['output']}"
    )
    rows = [
        [str(index), step["name"], ", ".join(f"{key} {value}" for key, value in step["options"].items())]
        for index, step in enumerate(document["steps"], 1)
    ]
    table(["step", "what", "options"], rows or [["-", "nothing to convert", ""]])
