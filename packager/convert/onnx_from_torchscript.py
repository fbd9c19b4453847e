"""TorchScript to ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packager.artifact import Artifact
from packager.onnx_export import export_script
from packager.sources.torchscript import load_script, sample


class OnnxFromTorchscript:
    """Only the TorchScript exporter reads scripted control flow."""

    source = "torchscript"
    result = "onnx"
    extra = "torch"

    def convert(self, artifact: Artifact, options: Mapping[str, Any], workdir: Path) -> Artifact:
        """Raises ConvertError."""
        return export_script(load_script(artifact.path), sample(artifact.inputs), artifact, options, workdir)
