"""PyTorch module (factory) to ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packager import torch_models
from packager.artifact import Artifact
from packager.onnx_export import export


class OnnxFromTorch:
    """Exports through torch.export; the TorchScript exporter where that fails, and then says so."""

    source = "torch"
    result = "onnx"
    extra = "torch"

    def convert(self, artifact: Artifact, options: Mapping[str, Any], workdir: Path) -> Artifact:
        """Raises ConvertError with both exporters' reasons."""
        made = torch_models.recall(artifact.entry)
        examples = torch_models.examples_for(made, options.get("shapes", {}))
        return export(made.module, examples, artifact, options, workdir)
