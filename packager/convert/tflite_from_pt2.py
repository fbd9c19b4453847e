"""An exported program (.pt2) to TFLite."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.contract.errors import ConvertError
from packager.artifact import Artifact
from packager.sources.pt2 import load_program
from packager.tflite_export import export_tflite


class TfliteFromPt2:
    """The program's own module and example inputs, through litert-torch."""

    source = "pt2"
    result = "tflite"
    extra = "tflite"

    def convert(self, artifact: Artifact, options: Mapping[str, Any], workdir: Path) -> Artifact:
        """Raises ConvertError, also for a program that was saved without its example inputs."""
        program = load_program(artifact.path)
        if not program.example_inputs or not program.example_inputs[0]:
            raise ConvertError(
                "the program holds no example inputs",
                where=artifact.path.name,
                fix="save it as torch.export.save gives it, or give the module's factory",
                code="no-example",
            )
        return export_tflite(program.module(), tuple(program.example_inputs[0]), artifact, options, workdir)
