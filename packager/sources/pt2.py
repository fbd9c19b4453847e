"""A `.pt2` file: a program saved by torch.export.save. Its weights are read without unpickling code."""

from __future__ import annotations

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


class Pt2:
    """Reads exported programs; the program itself is the reference."""

    format = "pt2"
    extra = "torch"

    def accepts(self, model: str) -> bool:
        """By its ending."""
        return model.endswith(".pt2")

    def open(self, model: str, options: Mapping[str, Any]) -> Artifact:
        """The program's user inputs and outputs. Raises UsageError for what torch.export cannot load."""
        path = Path(model)
        program = load_program(path)
        inputs = tuple(_spec(program, name) for name in program.graph_signature.user_inputs)
        names = torch_models.output_names(len(program.graph_signature.user_outputs), options.get("output_names", ()))
        outputs = tuple(
            TensorSpec(name, *_kind(program, node))
            for name, node in zip(names, program.graph_signature.user_outputs, strict=True)
        )
        return Artifact(format=self.format, path=path, digest=digest_files([path]), inputs=inputs, outputs=outputs)

    def example(self, artifact: Artifact) -> dict[str, np.ndarray[Any, Any]] | None:
        """The inputs the program was exported with, where it kept them."""
        program = load_program(artifact.path)
        if not program.example_inputs:
            return None
        args, _ = program.example_inputs
        return {spec.name: tensor.detach().numpy() for spec, tensor in zip(artifact.inputs, args, strict=False)}

    def run(self, artifact: Artifact, batches: Sequence[Arrays]) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
        """The program's own outputs."""
        return torch_models.run_module(
            load_program(artifact.path).module(),
            batches,
            [spec.name for spec in artifact.inputs],
            [spec.name for spec in artifact.outputs],
        )


def load_program(path: Path) -> Any:
    """The ExportedProgram. Raises UsageError."""
    torch = torch_models.need_torch()
    if not path.is_file():
        raise UsageError("there is no such model file", where=str(path), code="no-model")
    try:
        return torch.export.load(str(path))
    except Exception as error:
        # torch.export.load raises whatever its parts raise: zip, JSON, schema and value errors.
        raise UsageError(
            f"not an exported program: {error}", where=str(path), expected="a file of torch.export.save", code="not-pt2"
        ) from error


def _spec(program: Any, name: str) -> TensorSpec:
    return TensorSpec(name, *_kind(program, name))


def _kind(program: Any, name: str) -> tuple[str, list[int | str]]:
    node = next(node for node in program.graph.nodes if node.name == name)
    value = node.meta["val"]
    shape: list[int | str] = [size if isinstance(size, int) else str(size) for size in value.shape]
    return str(value.dtype).removeprefix("torch."), shape
