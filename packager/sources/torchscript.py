"""A TorchScript file (`.pt`, `.ts`, `.torchscript`): its archive holds code for TorchScript's own interpreter, no Python."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError, UsageError, unknown_name
from agent.contract.manifest import TensorSpec
from packager import torch_models
from packager.artifact import Artifact, digest_files
from packager.shapes import Shape, show

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
        check_names(shapes, names)
        inputs, tensors = _try(module, {name: shapes[name] for name in names}, path)
        outputs = torch_models.specs_of(
            torch_models.output_names(len(tensors), options.get("output_names", ())), tensors
        )
        return Artifact(
            format=self.format,
            path=path,
            digest=digest_files([path]),
            inputs=inputs,
            outputs=outputs,
            quantized="quantized::" in str(module.inlined_graph),
        )

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


def _try(module: Any, shapes: Mapping[str, Shape], path: Path) -> tuple[tuple[TensorSpec, ...], list[Any]]:
    """Runs the script, on floats first, then on integers: it does not say which it takes."""
    first: ConvertError | None = None
    for dtype in ("float32", "int64"):
        inputs = tuple(TensorSpec(name, dtype, list(shape)) for name, shape in shapes.items())
        try:
            return inputs, torch_models.run_once(module, sample(inputs))
        except ConvertError as error:
            first = first or error
    shown = ", ".join(f"{name}={show(shape)}" for name, shape in shapes.items())
    told = first.what if first else ""
    raise UsageError(
        f"the script does not run on {shown}: {told}",
        where=str(path),
        expected="shapes that its layers allow",
        code="run-failed",
    ) from first


def sample(inputs: Sequence[TensorSpec]) -> tuple[Any, ...]:
    """Inputs to run or trace a script with: standard normal floats, or zeros, which every table of tokens has."""
    torch = torch_models.need_torch()
    generator = torch.Generator().manual_seed(torch_models.SEED)
    tensors = []
    for spec in inputs:
        sizes = [size if isinstance(size, int) else 1 for size in spec.shape]
        floats = spec.dtype == "float32"
        tensors.append(torch.randn(sizes, generator=generator) if floats else torch.zeros(sizes, dtype=torch.int64))
    return tuple(tensors)


def check_names(shapes: Mapping[str, Shape], names: Sequence[str]) -> None:
    """Raises UsageError for a shape that names no input."""
    for name in shapes:
        if name not in names:
            raise unknown_name("input", name, names, fix="--shape takes the script's own input names")


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
