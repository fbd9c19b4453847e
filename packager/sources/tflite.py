"""A `.tflite` file: float, or already quantised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError
from packager.artifact import Artifact, digest_files
from packager.tflite_model import is_quantized, model_inputs, model_outputs, read_model
from packager.tflite_run import run_tflite

if TYPE_CHECKING:
    import numpy as np

    from packager.protocols import Arrays


class Tflite:
    """Reads TFLite models; LiteRT's kernels without delegates are the reference for what they compute."""

    format = "tflite"
    extra = "tflite"

    def accepts(self, model: str) -> bool:
        """By its ending."""
        return model.endswith(".tflite")

    def open(self, model: str, options: Mapping[str, Any]) -> Artifact:
        """The file as it is; inputs and outputs by their names in the signature. Raises ConvertError or UsageError."""
        del options
        path = Path(model)
        graph = read_model(path)
        inputs, outputs = model_inputs(graph), model_outputs(graph)
        if not inputs or not outputs:
            what = "inputs" if not inputs else "outputs"
            raise ConvertError(
                f"the model has no {what}", where=path.name, expected="at least one of each", code="no-io"
            )
        return Artifact(
            format=self.format,
            path=path,
            digest=digest_files([path]),
            inputs=inputs,
            outputs=outputs,
            quantized=is_quantized(graph),
        )

    def example(self, artifact: Artifact) -> dict[str, np.ndarray[Any, Any]] | None:
        """A TFLite file brings none."""
        del artifact
        return None

    def run(self, artifact: Artifact, batches: Sequence[Arrays]) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
        """The reference outputs; quantised outputs as the real numbers they stand for."""
        return run_tflite(
            artifact.path, batches, [spec.name for spec in artifact.inputs], [spec.name for spec in artifact.outputs]
        )
