"""PyTorch module (factory) to TFLite."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.contract.finding import INFO, Finding
from agent.contract.manifest import Step
from packager import torch_models
from packager.artifact import Artifact, digest_files
from packager.tflite_export import export_tflite


class TfliteFromTorch:
    """Through litert-torch, without TensorFlow; images channels last unless the layout says otherwise."""

    source = "torch"
    result = "tflite"
    extra = "tflite"

    def convert(self, artifact: Artifact, options: Mapping[str, Any], workdir: Path) -> Artifact:
        """Raises ConvertError."""
        made = torch_models.recall(artifact.entry)
        examples = torch_models.examples_for(made, options.get("shapes", {}))
        if hasattr(made.module, torch_models.QAT_ENGINE):
            return _learned(made.module, examples, artifact, options, workdir)
        return export_tflite(made.module, examples, artifact, options, workdir)


def _learned(
    module: Any, examples: tuple[Any, ...], artifact: Artifact, options: Mapping[str, Any], workdir: Path
) -> Artifact:
    """INT8 with the ranges that training learned: exported with them in the graph, then put into the operators."""
    from packager.compress.qdq import as_qdq
    from packager.tflite_graph import flatten_biases, fold_pads
    from packager.tflite_model import read_model, to_bytes
    from packager.tflite_qdq import integers_from_qdq

    made = export_tflite(as_qdq(module, float_weights=True), examples, artifact, options, workdir)
    model = read_model(made.path)
    flatten_biases(model)
    changed = integers_from_qdq(model)
    folded = fold_pads(model)
    path = workdir / "learned.tflite"
    path.write_bytes(to_bytes(model))
    digest = digest_files([path])
    told = {"operators": changed, **({"pads_folded": folded} if folded else {})}
    text = f"INT8 with the ranges learned in quantisation-aware training: {changed} operators compute on integers"
    return dataclasses.replace(
        made,
        path=path,
        digest=digest,
        quantized=True,
        steps=(*made.steps, Step("convert_learned", "edgepack", told, digest)),
        findings=(*made.findings, Finding("learned-ranges", INFO, text, "")),
    )
