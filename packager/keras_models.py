"""Keras models by a worker: in this interpreter where the keras extra is installed, else in an environment of its own."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError
from agent.contract.manifest import TensorSpec
from packager import toolchain
from packager.worker import run_worker, start_worker

if TYPE_CHECKING:
    import numpy as np

    from packager.protocols import Arrays

_TOOL = "keras"
_ONNX_TOOL = "tf2onnx"


def python_for_keras(progress: Callable[[str], None] = lambda _: None) -> str:
    """An interpreter with TensorFlow; makes one where there is none."""
    return _ready_python() or toolchain.install(_TOOL, progress).python


def _ready_python() -> str:
    """Ours where the keras extra is installed, else that of the environment; empty where there is none yet."""
    here = importlib.util.find_spec("tensorflow") is not None
    return sys.executable if here else toolchain.ready(_TOOL)


def warm() -> None:
    """Starts TensorFlow, where it is installed, for the first call that comes."""
    python = _ready_python()
    if python:
        start_worker(_TOOL, python)


def describe(path: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs; free dimensions are called by their tensor. Raises ConvertError."""
    try:
        found = call({"do": "describe", "model": str(path.resolve())}, path)
    except ConvertError as error:
        if error.code == "keras":
            error.expected = "a whole .keras or .h5 file, or the folder of a SavedModel"
            error.fix = (
                "save it again with model.save(); with layers of your own: model.export(FOLDER), which needs no code"
            )
        raise
    return _specs(found["inputs"]), _specs(found["outputs"])


def _specs(rows: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            name=row["name"],
            dtype=row["dtype"],
            shape=[f"{row['name']}_{axis}" if size is None else int(size) for axis, size in enumerate(row["shape"])],
        )
        for row in rows
    )


def run_keras(
    path: Path, batches: Sequence[Arrays], inputs: Sequence[str], outputs: Sequence[str]
) -> list[dict[str, np.ndarray[Any, Any]]]:
    """The model's own outputs for each batch."""
    import numpy as np

    with tempfile.TemporaryDirectory(prefix="edgepack-keras-") as folder:
        base = Path(folder)
        arrays: dict[str, Any] = {
            f"input_{place}": np.stack([batch[name] for batch in batches]) for place, name in enumerate(inputs)
        }
        np.savez(base / "inputs.npz", **arrays)
        task = {"do": "run", "model": str(path.resolve())}
        call({**task, "inputs": str(base / "inputs.npz"), "outputs": str(base / "outputs.npz")}, path)
        with np.load(base / "outputs.npz") as file:
            columns = {name: file[f"output_{place}"] for place, name in enumerate(outputs)}
    return [{name: column[place] for name, column in columns.items()} for place in range(len(batches))]


def to_onnx(task: Mapping[str, Any], path: Path, progress: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """The worker's task "onnx", in the environment of tf2onnx, which is made once. Raises ConvertError."""
    try:
        python = toolchain.install(_ONNX_TOOL, progress).python
        return run_worker(_TOOL, {**task, "do": "onnx"}, python=python, what=_ONNX_TOOL)
    except ConvertError as error:
        if error.code == "keras":
            error.where, error.code = path.name, "unsupported-operator"
            error.expected = "layers whose operators tf2onnx writes as ONNX"
            error.fix = "replace that layer in the model, or build with --runtime tflite"
        raise


def call(
    task: Mapping[str, Any],
    path: Path,
    progress: Callable[[str], None] = lambda _: None,
    meanwhile: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """One task of the worker; `meanwhile` is called while it works. Raises ConvertError that names the model."""
    try:
        # One process for all that a build asks of the model: to import TensorFlow costs more than most tasks.
        python = python_for_keras(progress)
        return run_worker(_TOOL, task, python=python, what="TensorFlow", keep=True, meanwhile=meanwhile)
    except ConvertError as error:
        if error.code == "keras":
            error.where = path.name
        raise
