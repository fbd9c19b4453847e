"""A Keras model: `.keras`, `.h5`, or the folder of a SavedModel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.errors import UsageError
from packager.artifact import Artifact, digest_files
from packager.keras_models import describe, run_keras

if TYPE_CHECKING:
    import numpy as np

    from packager.protocols import Arrays

_ENDINGS = (".keras", ".h5", ".hdf5")
_SAVED = "saved_model.pb"


class Keras:
    """Read, run and converted by TensorFlow in a process of its own."""

    format = "keras"
    extra = "tflite"

    def accepts(self, model: str) -> bool:
        """By its ending, or a folder that holds saved_model.pb."""
        return model.endswith(_ENDINGS) or (Path(model) / _SAVED).is_file()

    def open(self, model: str, options: Mapping[str, Any]) -> Artifact:
        """The file as it is. Raises UsageError or ConvertError."""
        del options
        path = Path(model)
        if not path.exists():
            raise UsageError("there is no such model", where=model, code="no-model")
        inputs, outputs = describe(path)
        # A folder's files are its companions, the graph first.
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        main = path / _SAVED if path.is_dir() else path
        rest = tuple(file for file in files if file != main)
        digest = digest_files([main, *rest])
        return Artifact(
            format=self.format, path=main, digest=digest, inputs=inputs, outputs=outputs, companions=rest, entry=model
        )

    def example(self, artifact: Artifact) -> dict[str, np.ndarray[Any, Any]] | None:
        """A Keras file brings none."""
        del artifact
        return None

    def run(self, artifact: Artifact, batches: Sequence[Arrays]) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
        """The model's own outputs."""
        inputs, outputs = ([spec.name for spec in side] for side in (artifact.inputs, artifact.outputs))
        return iter(run_keras(Path(artifact.entry), batches, inputs, outputs))
