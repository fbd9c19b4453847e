"""Show what is in a bundle, or what a model is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from packager.cli._show import json_option, mb, print_json, show_findings, table
from packager.cli._signers import judged, line, signer_options, trust_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agent.contract.manifest import TensorSpec
    from agent.contract.signatures import Trust


@click.command()
@click.argument("bundle", metavar="BUNDLE_OR_MODEL")
@click.option("--shape", "shapes", multiple=True, help="A model's NAME=1x3x224x224: sizes for its multiply-adds.")
@click.option("--layers", is_flag=True, help="The layer table of the host's engine builder (TensorRT bundles).")
@signer_options
@json_option
def command(
    bundle: str,
    shapes: tuple[str, ...],
    allowed_signers: Path | None,
    revoked: Path | None,
    *,
    layers: bool,
    as_json: bool,
) -> None:
    """Show a bundle's manifest: inputs, outputs, recipe, steps, what the device must have, who signed it. Of a model: its
    inputs, outputs, operators and multiply-adds.
    """
    from packager import registry

    if any(source.accepts(bundle) for source in registry.sources()):
        _show_model(bundle, shapes, as_json=as_json)
    else:
        _show_bundle(bundle, trust_of(allowed_signers, revoked), layers=layers, as_json=as_json)


def _show_model(model: str, sizes: tuple[str, ...], *, as_json: bool) -> None:
    from agent.contract import codec
    from packager.overview import overview
    from packager.shapes import parse_shapes

    told = overview(model, parse_shapes(sizes))
    if as_json:
        print_json(codec.encode(told))
        return
    about = [f"{told.format} model", mb(told.size_bytes)]
    about += [f"opset {told.opset}"] if told.opset else []
    about += [f"{told.parameters:,} parameters"] if told.parameters is not None else []
    about += [f"{told.macs / 1e6:,.3f} M multiply-adds for one sample"] if told.macs is not None else []
    about += ["multiply-adds need --shape"] if told.operators and told.format == "onnx" and told.macs is None else []
    about += ["quantised"] if told.quantized else []
    click.echo(", ".join(about))
    click.echo(told.digest)
    _show_tensors(told.inputs, told.outputs, told.quantization)
    if told.operators:
        click.echo("operators: " + ", ".join(f"{count} {name}" for name, count in told.operators.items()))


def _show_tensors(
    inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], scales: Mapping[str, Mapping[str, Any]]
) -> None:
    from packager.shapes import show

    rows = [
        [kind, spec.name, spec.dtype, show(spec.shape), spec.layout, _real(scales.get(spec.name))]
        for kind, specs in (("input", inputs), ("output", outputs))
        for spec in specs
    ]
    heads = ["", "name", "type", "shape", "layout", "real value"]
    table(heads if scales else heads[:-1], rows if scales else [row[:-1] for row in rows])


def _real(scale: Mapping[str, Any] | None) -> str:
    return f"(q - {scale['zero_point']}) * {scale['scale']:.9g}" if scale else ""


def _show_bundle(bundle: str, trust: Trust | None, *, layers: bool, as_json: bool) -> None:
    from agent.contract import codec
    from agent.contract.archive import BundleReader

    with BundleReader(bundle) as reader:
        manifest, digest, signed = reader.manifest, reader.digest, judged(reader, trust)
    if as_json:
        print_json({**codec.encode(manifest), "digest": digest, "signatures": codec.encode(signed)})
        return
    need = manifest.runtime
    features = f", CPU with {', '.join(need.cpu_features)}" if need.cpu_features else ""
    click.echo(
        f"{manifest.name} for {manifest.target}: {need.name} >= {need.min_version}{features}, {manifest.recipe['name']}"
    )
    click.echo(
        f"{digest}  made by edgepack {manifest.edgepack} from {manifest.source.name} ({mb(manifest.source.size_bytes)})"
    )
    _show_tensors(manifest.inputs, manifest.outputs, manifest.facts.get("quantization") or {})
    table(
        ["file", "size", "sha256"], [[name, mb(e.size), e.sha256[:16]] for name, e in manifest.files.items()], right=[1]
    )
    for step in manifest.steps:
        click.echo(f"{step.name} ({step.tool}): " + ", ".join(f"{key} {value}" for key, value in step.options.items()))
    if manifest.calibration:
        click.echo(f"calibrated on {manifest.calibration.samples} samples ({manifest.calibration.kind})")
    for one in signed:
        click.echo(line(one))
    show_findings(manifest.findings)
    if layers:
        _show_layers(manifest.facts.get("layers"), bundle)


def _show_layers(rows: object, bundle: str) -> None:
    from agent.contract.errors import UsageError

    if not isinstance(rows, list):
        raise UsageError(
            "this bundle has no layer table",
            where=bundle,
            expected="a TensorRT bundle that was built with the extra `tensorrt`",
            code="no-layers",
        )
    told = {True: "yes", False: "no", None: ""}
    table(
        ["layer", "made of the nodes", "input types", "INT8", "why not"],
        [
            [row["kind"], " + ".join(row["nodes"]), ", ".join(row["types"]), told[row["int8"]], row["why"]]
            for row in rows
        ],
    )
