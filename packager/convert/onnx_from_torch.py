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
        halves = torch_models.split_factory(artifact.entry) or ("", "")
        module, examples, _ = torch_models.call_factory(*halves)
        if examples is None:
            examples = torch_models.make_examples(module, options.get("shapes", {}))
        if hasattr(module, torch_models.QAT_ENGINE):
            from packager.compress.qdq import as_qdq

            module = as_qdq(module)
        return export(module, examples, artifact, options, workdir)
