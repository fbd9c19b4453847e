"""PyTorch module (factory) to TFLite."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packager import torch_models
from packager.artifact import Artifact
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
        return export_tflite(made.module, examples, artifact, options, workdir)
