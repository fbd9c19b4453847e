"""An exported program (.pt2) to ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packager.artifact import Artifact
from packager.onnx_export import export_program
from packager.sources.pt2 import load_program


class OnnxFromPt2:
    """The program is already captured: it is only translated, with its own free dimensions."""

    source = "pt2"
    result = "onnx"
    extra = "torch"

    def convert(self, artifact: Artifact, options: Mapping[str, Any], workdir: Path) -> Artifact:
        """Raises ConvertError."""
        return export_program(load_program(artifact.path), artifact, options, workdir)
