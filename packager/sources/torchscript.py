"""A TorchScript file (`.pt`, `.ts`, `.torchscript`): its archive holds code for TorchScript's own interpreter, no Python."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.errors import UsageError
from agent.contract.manifest import TensorSpec
from packager import torch_models
from packager.artifact import Artifact, digest_files

if TYPE_CHECKING:
    import numpy as np

    from packager.protocols import Arrays

_ENDINGS = (".pt", ".pth", ".ts", ".torchscript", ".jit")


class Torchscript:
    """Reads TorchScript; the module itself is the reference. Input shapes come from --shape: the file has none."""

    format = "torchscript"
    extra = "torch"

    def accepts(self, model: str) -> bool:
        """By its ending."""
        return model.endswith(_ENDINGS)

    def open(self, model: str, options: Mapping[str, Any]) -> Artifact:
        """The script, run once on inputs of the shapes given. Raises UsageError for a mere checkpoint."""
        path = Path(model)
        module = load_script(path)
        names = [value.debugName() for value in module.graph.inputs()][1:]
        names = [name.split(".")[0] for name in names]
        shapes = options.get("shapes", {})
        missing = [name for name in names if name not in shapes]
        if missing:
            raise UsageError(
                f"TorchScript does not say the shape of {', '.join(missing)}",
                where=str(path),
                fix=" ".join(f"--shape {name}=1x3x224x224" for name in missing),
                code="no-example",
            )
        inputs = tuple(TensorSpec(name, "float32", list(shapes[name])) for name in names)
        tensors = self._try(module, inputs, path)
        outputs = torch_models.specs_of(
            torch_models.output_names(len(tensors), options.get("output_names", ())), tensors
        )
        return Artifact(format=self.format, path=path, digest=digest_files([path]), inputs=inputs, outputs=outputs)

    def example(self, artifact: Artifact) -> dict[str, np.ndarray[Any, Any]] | None:
        """TorchScript brings none."""
        del artifact
        return None

    def run(self, artifact: Artifact, batches: Sequence[Arrays]) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
        """The script's own outputs."""
        return torch_models.run_module(
            load_script(artifact.path),
            batches,
            [spec.name for spec in artifact.inputs],
            [spec.name for spec in artifact.outputs],
        )

    @staticmethod
    def _try(module: Any, inputs: Sequence[TensorSpec], path: Path) -> list[Any]:
        torch = torch_models.need_torch()
        feeds = [torch.zeros([size if isinstance(size, int) else 1 for size in spec.shape]) for spec in inputs]
        try:
            with torch.no_grad():
                return torch_models.flatten_outputs(module(*feeds))
        except (RuntimeError, ValueError) as error:
            raise UsageError(
                f"the module does not run on these shapes: {str(error)[-600:]}", where=str(path), code="run-failed"
            ) from error


def load_script(path: Path) -> Any:
    """The ScriptModule on the CPU, in eval mode. Raises UsageError."""
    torch = torch_models.need_torch()
    if not path.is_file():
        raise UsageError("there is no such model file", where=str(path), code="no-model")
    if not _is_script(path):
        raise UsageError(
            "not TorchScript: this looks like a checkpoint (weights only), or no PyTorch file at all",
            where=str(path),
            expected="a file of torch.jit.save",
            fix="name the code that builds the module and loads the weights: edgepack build file.py:factory",
            code="not-torchscript",
        )
    try:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit.load is deprecated; the format lives on
            warnings.simplefilter("ignore", FutureWarning)
            return torch.jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"the TorchScript file does not load: {error}", where=str(path), code="not-torchscript"
        ) from error


def _is_script(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/code/" in name for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False
