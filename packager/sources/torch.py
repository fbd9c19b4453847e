"""A PyTorch module from the user's own code: `path/file.py:factory` or `package.module:factory`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError, UsageError
from packager import torch_models
from packager.artifact import Artifact, digest_files
from packager.shapes import check_shapes

if TYPE_CHECKING:
    import numpy as np

    from packager.protocols import Arrays


class Torch:
    """Calls the factory the user named; its module is the reference."""

    format = "torch"
    extra = "torch"

    def accepts(self, model: str) -> bool:
        """`file.py:factory` or `package.module:factory`."""
        return torch_models.split_factory(model) is not None

    def open(self, model: str, options: Mapping[str, Any]) -> Artifact:
        """The artifact's digest covers the file and every weight. Raises UsageError or ConvertError."""
        halves = torch_models.split_factory(model)
        if halves is None:
            raise UsageError(f"not a factory: {model!r}", expected="file.py:factory or package.module:factory")
        module, examples, findings = torch_models.call_factory(*halves)
        shapes = options.get("shapes", {})
        if examples is None:
            examples = torch_models.make_examples(module, shapes)
        names = torch_models.input_names(module, len(examples))
        inputs = torch_models.specs_of(names, examples)
        check_shapes(shapes, inputs, may_free=True)
        tensors = _outputs(module, examples, model)
        outputs = torch_models.specs_of(
            torch_models.output_names(len(tensors), options.get("output_names", ())), tensors
        )
        path = Path(halves[0]) if halves[0].endswith(".py") else _module_file(halves[0])
        return Artifact(
            format=self.format,
            path=path,
            digest=_digest(path, module),
            inputs=inputs,
            outputs=outputs,
            findings=tuple(findings),
            entry=model,
            quantized=hasattr(module, torch_models.QAT_ENGINE),
            weights_bytes=sum(value.nbytes for value in module.state_dict().values() if hasattr(value, "nbytes")),
        )

    def example(self, artifact: Artifact) -> dict[str, np.ndarray[Any, Any]] | None:
        """The factory's example inputs."""
        _, examples, _ = torch_models.call_factory(*_halves(artifact))
        if examples is None:
            return None
        return {spec.name: tensor.numpy() for spec, tensor in zip(artifact.inputs, examples, strict=True)}

    def run(self, artifact: Artifact, batches: Sequence[Arrays]) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
        """The module's own outputs."""
        module, _, _ = torch_models.call_factory(*_halves(artifact))
        return torch_models.run_module(
            module, batches, [spec.name for spec in artifact.inputs], [spec.name for spec in artifact.outputs]
        )


def _halves(artifact: Artifact) -> tuple[str, str]:
    halves = torch_models.split_factory(artifact.entry)
    if halves is None:
        raise UsageError(f"not a factory: {artifact.entry!r}")
    return halves


def _outputs(module: Any, examples: tuple[Any, ...], where: str) -> list[Any]:
    torch = torch_models.need_torch()
    try:
        with torch.no_grad():
            return torch_models.flatten_outputs(module(*examples))
    except ConvertError:
        raise
    except Exception as error:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in examples)
        raise UsageError(
            f"the module does not run on its example inputs ({shapes}): {error}", where=where, code="run-failed"
        ) from error


def _module_file(name: str) -> Path:
    import importlib

    file = importlib.import_module(name).__file__
    if file is None:
        raise UsageError(f"the module {name} has no file", expected="a module with the factory in it")
    return Path(file)


def _digest(path: Path, module: Any) -> str:
    total = hashlib.sha256(digest_files([path]).encode())
    for key, value in sorted(module.state_dict().items()):
        if hasattr(value, "detach"):
            array = value.detach().cpu().contiguous()
            total.update(f"{key}{array.dtype}{tuple(array.shape)}".encode())
            total.update(bytes(array.untyped_storage()) if array.numel() else b"")
    return total.hexdigest()
