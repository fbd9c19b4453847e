"""TensorFlow Lite Micro itself, run on the host: the oracle for "does it fit" and "is it right"."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError
from packager.tflite_model import need, quantization_of, read_model
from packager.tflite_run import real
from packager.worker import run_worker

if TYPE_CHECKING:
    import numpy as np

    from packager.artifact import Artifact
    from packager.protocols import Arrays

_MOST_ARENA = 256 << 20
_UNKNOWN = re.compile(r"(?:builtin opcode|custom op(?:code)?|op) '?([A-Z0-9_]+)'?")


def run_micro(artifact: Artifact, batches: Iterable[Arrays]) -> tuple[int, list[dict[str, np.ndarray[Any, Any]]]]:
    """The arena in bytes, and the real outputs for each batch. Raises ConvertError that names a missing operator.

    The arena is that of a 64-bit host: pointers are half as large on the device, so it needs no more there.
    """
    import numpy as np

    need("tflite_micro.python.tflite_micro.runtime")
    rows_in = list(batches)
    names_in, names_out = [spec.name for spec in artifact.inputs], [spec.name for spec in artifact.outputs]
    with tempfile.TemporaryDirectory(prefix="edgepack-tflm-") as folder:
        base = Path(folder)
        arrays = {f"input_{i}": np.stack([batch[name] for batch in rows_in]) for i, name in enumerate(names_in)}
        np.savez(base / "inputs.npz", **arrays)
        task = {
            "model": str(artifact.path.resolve()),
            "inputs": str(base / "inputs.npz"),
            "outputs": str(base / "outputs.npz"),
            "outputs_count": len(names_out),
            "most": _MOST_ARENA,
        }
        try:
            found = run_worker("tflite_micro", task, what="TensorFlow Lite Micro")
        except ConvertError as error:
            raise _explain(error) from error
        with np.load(base / "outputs.npz") as file:
            columns = {name: file[f"output_{i}"] for i, name in enumerate(names_out)}
    scales = quantization_of(read_model(artifact.path))
    none = {"scale": 0.0, "zero_point": 0}
    rows = [
        {name: real(column[i], **scales.get(name, none)) for name, column in columns.items()}
        for i in range(len(rows_in))
    ]
    return int(found["arena_bytes"]), rows


def _explain(error: ConvertError) -> ConvertError:
    match = _UNKNOWN.search(error.where)
    named = f": it has no operator {match[1]}" if match else ""
    return ConvertError(
        f"TensorFlow Lite Micro does not run the model{named}",
        where=error.where[-600:],
        expected="operators and types that TensorFlow Lite Micro has (int8 and float32)",
        fix="replace the operator in the model, or build for a board with Linux",
        code="unsupported-operator" if match else "tflm-refused",
    )
