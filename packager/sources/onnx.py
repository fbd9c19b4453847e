"""An `.onnx` file, its external data beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError
from packager.artifact import Artifact, digest_files
from packager.onnx_model import (
    check_model,
    external_files,
    is_quantized,
    load_model,
    model_inputs,
    model_outputs,
    need_onnxruntime,
    opset,
)

if TYPE_CHECKING:
    import numpy as np

    from packager.protocols import Arrays


class Onnx:
    """Reads ONNX models; onnxruntime without its optimisations is the reference for what they compute."""

    format = "onnx"
    extra = ""

    def accepts(self, model: str) -> bool:
        """By its ending."""
        return model.endswith(".onnx")

    def open(self, model: str, options: Mapping[str, Any]) -> Artifact:
        """The file as it is; nothing is changed yet. Raises UsageError or ConvertError."""
        del options
        path = Path(model)
        graph = load_model(path, weights=False)
        inputs, outputs = model_inputs(graph), model_outputs(graph)
        _check_io(inputs, outputs, path.name)
        check_model(load_model(path) if external_files(graph) else graph, path.name)
        companions = tuple(path.parent / name for name in external_files(graph))
        return Artifact(
            format=self.format,
            path=path,
            digest=digest_files([path, *companions]),
            inputs=inputs,
            outputs=outputs,
            companions=companions,
            opset=opset(graph),
            quantized=is_quantized(graph),
        )

    def example(self, artifact: Artifact) -> dict[str, np.ndarray[Any, Any]] | None:
        """An ONNX file brings none."""
        del artifact
        return None

    def run(self, artifact: Artifact, batches: Sequence[Arrays]) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
        """The reference outputs. Raises ConvertError when onnxruntime does not take the model."""
        return run_onnx(artifact.path, batches, [spec.name for spec in artifact.outputs])


def run_onnx(path: Path, batches: Sequence[Arrays], names: list[str]) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
    """Runs the file with every optimisation off: the plain meaning of the graph, no saturating INT8 kernels."""
    onnxruntime = need_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # onnxruntime's exceptions have no common base below Exception.
        raise ConvertError(
            f"onnxruntime {onnxruntime.__version__} does not load the model: {str(error)[:600]}",
            where=path.name,
            code="load-failed",
        ) from error
    for batch in batches:
        try:
            values = session.run(names, dict(batch))
        except Exception as error:
            shapes = ", ".join(f"{name} {list(array.shape)} {array.dtype}" for name, array in batch.items())
            raise ConvertError(
                f"the model does not run: {str(error)[:600]}", where=f"{path.name} on {shapes}", code="run-failed"
            ) from error
        yield dict(zip(names, values, strict=True))


def _check_io(inputs: Sequence[Any], outputs: Sequence[Any], where: str) -> None:
    if not inputs or not outputs:
        what = "inputs" if not inputs else "outputs"
        raise ConvertError(
            f"the model has no {what}",
            where=where,
            expected="at least one of each",
            fix="export it again",
            code="no-io",
        )
    for spec in inputs:
        if not spec.dtype:
            raise ConvertError(f"input {spec.name!r} has no type", where=where, code="no-type")
        if any(isinstance(size, int) and size <= 0 for size in spec.shape):
            raise ConvertError(
                f"input {spec.name!r} has the shape {spec.shape}: nothing fits into it",
                where=where,
                expected="dimensions of at least 1, or free ones",
                code="zero-size",
            )
