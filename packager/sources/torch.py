"""A PyTorch module from the user's own code: `path/file.py:factory` or `package.module:factory`."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError, UsageError
from packager import torch_models
from packager.artifact import Artifact, digest_files

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
        made = torch_models.call_factory(model)
        examples = torch_models.examples_for(made, options.get("shapes", {}))
        inputs = torch_models.specs_of(torch_models.input_names(made.module, len(examples)), examples)
        tensors = _outputs(made.module, examples, model)
        outputs = torch_models.specs_of(
            torch_models.output_names(len(tensors), options.get("output_names", ())), tensors
        )
        torch_models.remember(dataclasses.replace(made, examples=examples if made.examples is not None else None))
        place = model.rpartition(":")[0]
        path = Path(place) if place.endswith(".py") else _module_file(place)
        return Artifact(
            format=self.format,
            path=path,
            digest=_digest(path, made.module),
            inputs=inputs,
            outputs=outputs,
            findings=made.findings,
            entry=model,
            quantized=torch_models.is_quantized(made.module),
            weights_bytes=sum(value.nbytes for value in made.module.state_dict().values() if hasattr(value, "nbytes")),
        )

    def example(self, artifact: Artifact) -> dict[str, np.ndarray[Any, Any]] | None:
        """The factory's example inputs."""
        examples = torch_models.recall(artifact.entry).examples
        if examples is None:
            return None
        return {spec.name: tensor.numpy() for spec, tensor in zip(artifact.inputs, examples, strict=True)}

    def run(self, artifact: Artifact, batches: Sequence[Arrays]) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
        """The module's own outputs."""
        return torch_models.run_module(
            torch_models.recall(artifact.entry).module,
            batches,
            [spec.name for spec in artifact.inputs],
            [spec.name for spec in artifact.outputs],
        )


def _outputs(module: Any, examples: tuple[Any, ...], where: str) -> list[Any]:
    try:
        return torch_models.run_once(module, examples)
    except ConvertError as error:
        if error.code != "run-failed":
            raise
        raise UsageError(
            f"{error.what} (on its example inputs)", where=f"{where}, {error.where}", code=error.code
        ) from error


def _module_file(name: str) -> Path:
    import importlib

    file = importlib.import_module(name).__file__
    if file is None:
        raise UsageError(f"the module {name} has no file", expected="a module with the factory in it")
    return Path(file)


def _digest(path: Path, module: Any) -> str:
    torch = torch_models.need_torch()
    total = hashlib.sha256(digest_files([path]).encode())
    for key, value in sorted(module.state_dict().items()):
        if not hasattr(value, "detach"):
            continue
        array = value.detach().cpu()
        array = (array.dequantize() if array.is_quantized else array).contiguous()
        total.update(f"{key}{array.dtype}{tuple(array.shape)}".encode())
        total.update(array.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
