"""Show what is in a bundle."""

from __future__ import annotations

from pathlib import Path

import click

from packager.cli._show import json_option, mb, print_json, show_findings, table
from packager.cli._signers import judged, line, signer_options, trust_of


@click.command()
@click.argument("bundle")
@signer_options
@json_option
def command(bundle: str, allowed_signers: Path | None, revoked: Path | None, *, as_json: bool) -> None:
    """Show the manifest of BUNDLE: inputs, outputs, recipe, steps, what the device must have, who signed it."""
    from agent.contract import codec
    from agent.contract.archive import BundleReader
    from packager.shapes import show

    trust = trust_of(allowed_signers, revoked)
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
    rows = [
        [kind, spec.name, spec.dtype, show(spec.shape), spec.layout]
        for kind, specs in (("input", manifest.inputs), ("output", manifest.outputs))
        for spec in specs
    ]
    table(["", "name", "type", "shape", "layout"], rows)
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
