"""An artifact: a model on disk in one format, with its digest, its inputs and outputs, and the steps that made it."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from pathlib import Path

from agent.contract.finding import Finding
from agent.contract.manifest import Step, TensorSpec

_CHUNK = 1 << 20


@dataclasses.dataclass(frozen=True)
class Artifact:
    """The one thing that flows on the host.

    `path` is the main file; `companions` are further files that belong to it (ONNX external data), beside it.
    `entry` names the factory of a Python source. `digest` is the hex sha256 over all files. `weights_bytes`
    is the size of the weights of a source whose file does not hold them (a Python factory).
    """

    format: str
    path: Path
    digest: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    steps: tuple[Step, ...] = ()
    findings: tuple[Finding, ...] = ()
    companions: tuple[Path, ...] = ()
    entry: str = ""
    opset: int | None = None
    quantized: bool = False
    weights_bytes: int | None = None

    @property
    def size_bytes(self) -> int:
        """Size of all files, in bytes."""
        return sum(path.stat().st_size for path in (self.path, *self.companions))


def digest_files(paths: Iterable[Path]) -> str:
    """The hex sha256 over the files' bytes, in the order given."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                total.update(chunk)
    return total.hexdigest()
