"""Accuracy: a model's or a bundle's outputs on labelled samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError, UsageError
from packager.onnx_model import need_onnxruntime

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_BATCH = 50


def top1(outputs: Mapping[str, Array], labels: Array) -> float:
    """The share of samples whose largest output is the label's. Takes models with one output."""
    if len(outputs) != 1:
        raise UsageError(f"top1 needs one output, the model has {len(outputs)}", code="metric")
    (values,) = outputs.values()
    return float((values.reshape(len(labels), -1).argmax(axis=1) == labels).mean())


def run_bundle(bundle: str | Path, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """An ONNX bundle's outputs on this machine's own kernels, all samples stacked; the bundle's session options apply.

    Raises ConvertError for a bundle of another runtime, IntegrityError for one that is not whole.
    """
    import tempfile

    import numpy as np

    from agent.contract.archive import BundleReader

    with tempfile.TemporaryDirectory(prefix="edgepack-evaluate-") as folder, BundleReader(bundle) as reader:
        manifest = reader.manifest
        if manifest.runtime.name != "onnxruntime":
            raise ConvertError(
                f"{manifest.runtime.name} bundles cannot be evaluated on this machine", where=str(bundle)
            )
        reader.extract(folder)
        path = Path(folder).joinpath(*manifest.model.split("/"))
        fixed = any(spec.shape and spec.shape[0] == 1 for spec in manifest.inputs)
        names = [spec.name for spec in manifest.outputs]
        rows = list(_run(path, arrays, names, manifest.session_options, 1 if fixed else _BATCH))
    return {name: np.concatenate([row[name] for row in rows]) for name in names}


def _run(
    path: Path, arrays: Mapping[str, Array], names: list[str], session_options: Mapping[str, Any], batch: int
) -> Iterator[dict[str, Array]]:
    onnxruntime = need_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        str(path),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=session_options.get("disabled_optimizers"),
    )
    count = len(next(iter(arrays.values())))
    for start in range(0, count, batch):
        values = session.run(names, {name: array[start : start + batch] for name, array in arrays.items()})
        yield dict(zip(names, values, strict=True))
