"""TorchScript to ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packager import torch_models
from packager.artifact import Artifact
from packager.onnx_export import export_script
from packager.sources.torchscript import load_script


class OnnxFromTorchscript:
    """Only the TorchScript exporter reads scripted control flow."""

    source = "torchscript"
    result = "onnx"
    extra = "torch"

    def convert(self, artifact: Artifact, options: Mapping[str, Any], workdir: Path) -> Artifact:
        """Raises ConvertError."""
        torch = torch_models.need_torch()
        generator = torch.Generator().manual_seed(torch_models.SEED)
        examples = tuple(
            torch.randn([size if isinstance(size, int) else 1 for size in spec.shape], generator=generator)
            for spec in artifact.inputs
        )
        return export_script(load_script(artifact.path), examples, artifact, options, workdir)
