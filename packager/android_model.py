"""The last step of a phone's `.tflite`: what an app reads from it is written into it, and the oldest LiteRT is known."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError
from agent.contract.finding import INFO, WARNING, Finding
from agent.contract.manifest import Step
from packager.artifact import digest_files
from packager.litert_versions import lacking, oldest_for, operator_versions
from packager.tflite_metadata import Labels, describe, read_labels, read_metadata, write_metadata
from packager.tflite_model import peek_model, quantization_of
from packager.version import __version__

if TYPE_CHECKING:
    from packager.artifact import Artifact
    from packager.protocols import Lowering

_RANK = 4


def least_runtime(artifact: Artifact, asked: str) -> str:
    """The oldest LiteRT that the model may meet: `asked`, or the oldest that runs its operators.

    Raises ConvertError, code "min-runtime", for an operator that the LiteRT asked for does not run.
    """
    wanted = operator_versions(peek_model(artifact.path))
    oldest = oldest_for(wanted)
    missing = lacking(wanted, asked) if asked else {}
    if missing:
        told = ", ".join(
            f"{name} version {need} (it has {f'version {has}' if has else 'none'})"
            for name, (need, has) in sorted(missing.items())
        )
        raise ConvertError(
            f"LiteRT {asked} does not run the model's {told}",
            expected=f"operators of LiteRT {asked}, the oldest that was asked for",
            fix=f"--min-runtime {oldest}, or another recipe (int8-dynamic needs the newest operators, fp32 the oldest)",
            code="min-runtime",
        )
    return asked or oldest


def with_metadata(artifact: Artifact, original: Artifact, job: Lowering) -> Artifact:
    """The artifact with TFLite metadata in its file; one that was quantised by others and brings its own keeps that."""
    labels = asked_labels(artifact, job)
    raw = artifact.path.read_bytes()
    before, files = read_metadata(original.path.read_bytes()) if original.format == "tflite" else (None, {})
    if before is not None and original.quantized and labels is None:
        kept = Finding("metadata-kept", INFO, "the source brings TFLite metadata: kept as they are", "")
        return dataclasses.replace(artifact, findings=(*artifact.findings, kept))
    findings = list(artifact.findings)
    if files and labels is None:
        told = f"the source's metadata brought files that are not carried over: {', '.join(sorted(files))}"
        findings.append(Finding("metadata-files", WARNING, told, "give its labels with --labels"))
    pictures = [spec.name for spec in artifact.inputs if spec.layout == "nhwc" and len(spec.shape) == _RANK]
    if pictures and job.preprocessing is None:
        told = f"the metadata say nothing of the normalisation of {', '.join(pictures)}"
        findings.append(
            Finding("metadata-normalisation", INFO, told, "give --image-size, --image-mean and --image-std")
        )
    title = (job.name or "model", f"{job.recipe.precision}, made by edgepack {__version__}")
    quantization = quantization_of(peek_model(artifact.path))
    document = describe(title, artifact.inputs, artifact.outputs, quantization, job.preprocessing, labels)
    path = job.workdir / "described.tflite"
    path.write_bytes(write_metadata(raw, document, labels))
    digest = digest_files([path])
    options: dict[str, Any] = {"normalisation": bool(pictures and job.preprocessing)}
    if labels:
        options["labels"] = len(labels.words)
    step = Step("write_metadata", "edgepack", options, digest)
    return dataclasses.replace(
        artifact, path=path, digest=digest, steps=(*artifact.steps, step), findings=tuple(findings)
    )


def asked_labels(artifact: Artifact, job: Lowering) -> Labels | None:
    """What --labels names, read and checked against the outputs. Raises UsageError."""
    given = job.options.get("labels")
    return read_labels(str(given), artifact.outputs) if given else None
