"""Scores a model in any source format, or a bundle of any runtime, on this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError, UsageError
from agent.contract.finding import INFO, Finding
from packager import registry
from packager.accuracy.dataset import EvalSet, load_eval
from packager.accuracy.metric import Metric, Score, load_metric
from packager.artifact import Artifact
from packager.onnx_model import has_signed_weights, load_model, need_onnxruntime
from packager.tflite_run import fit

if TYPE_CHECKING:
    import numpy as np

    from agent.contract.manifest import Manifest, TensorSpec

    Array = np.ndarray[Any, Any]

_FORMATS = {"onnxruntime": "onnx", "tensorrt": "onnx", "tflite": "tflite", "tflite_micro": "tflite",
            "pytorch_lite": "ptl", "executorch": "pte"}  # fmt: skip
_SUFFIX = ".edgepack"
_BATCHED = ("torch", "onnx")
_BATCH = 32
_NEAR = 1e-4  # batches are summed in another order
_IMAGE = 4


def is_bundle(model: str) -> bool:
    """Whether this names a bundle and no source model."""
    return model.endswith(_SUFFIX) and Path(model).is_file()


def evaluate(
    model: str | Path,
    data: str | Path,
    metric: str | None = None,
    *,
    original: str | None = None,
    shapes: Mapping[str, Any] | None = None,
) -> tuple[Score, list[Finding]]:
    """The score of a model or a bundle on the samples in `data`. `original` is the model whose answers `agreement` wants.

    Raises UsageError, ConvertError, or IntegrityError for a bundle that is not whole.
    """
    options = {"shapes": dict(shapes or {}), "output_names": ()}
    bundle = is_bundle(str(model))
    if bundle:
        outputs, samples, findings = _run_bundle(Path(model), data)
    else:
        source = _source(str(model))
        artifact = source.open(str(model), options)
        samples = load_eval(data, artifact.inputs)
        outputs, findings = run_source(artifact, samples), []
    chosen = load_metric(metric, samples)
    reference = outputs if not bundle else None
    if original:
        first = _source(original).open(original, options)
        reference = run_source(first, load_eval(data, first.inputs))
    elif bundle and samples.labels is None:
        raise UsageError(
            f"the metric {chosen.name} needs labels, or the original to compare the bundle with",
            where=samples.where,
            fix="add `labels` to the .npz, or give --original MODEL",
            code="no-labels",
        )
    score = chosen.measure(outputs, samples.labels, reference)
    return score, [*findings, *score.findings()]


def _source(model: str) -> Any:
    for source in registry.sources():
        if source.accepts(model):
            return source
    raise UsageError(
        "there is no such model" if not Path(model).exists() else "neither a model nor a bundle that edgepack reads",
        where=model,
        expected="a bundle (.edgepack), model.onnx, .tflite, .keras, .h5, .pt2, a TorchScript .pt or file.py:factory",
        code="no-model",
    )


def run_source(artifact: Artifact, data: EvalSet) -> dict[str, Array]:
    """The original's own outputs, stacked over the samples."""
    source = registry.source(artifact.format)
    if data.batch == 1 and len(data) > 1 and artifact.format in _BATCHED:
        found = in_batches(lambda feeds: source.run(artifact, list(feeds)), data.arrays, len(data))
        if found is not None:
            return found
    return data.stack(source.run(artifact, list(data.feeds())))


def in_batches(
    run: Callable[[Iterable[dict[str, Array]]], Iterable[Mapping[str, Array]]], arrays: Mapping[str, Array], n: int
) -> dict[str, Array] | None:
    """The outputs, many samples at a time; None for a model that does not take them, or mixes them."""
    import numpy as np

    def chunk(start: int, stop: int) -> dict[str, Array]:
        return {name: np.ascontiguousarray(array[start:stop]) for name, array in arrays.items()}

    count = min(_BATCH, n)
    try:
        one, many = run([chunk(count - 1, count), chunk(0, count)])
    except ConvertError as error:
        if error.code != "run-failed":
            raise
        return None  # shapes fixed inside the model: sample by sample, then
    for name, wide in many.items():
        single = one[name]
        if not single.ndim or len(single) != 1 or wide.shape != (count, *single.shape[1:]):
            return None
        near = _NEAR * max(1.0, float(np.abs(single).max(initial=0.0))) if single.dtype.kind == "f" else 0.0
        if not np.allclose(wide[-1], single[0], rtol=0, atol=near):
            return None
    rows = list(run(chunk(start, start + count) for start in range(0, n, count)))
    return {name: np.concatenate([row[name] for row in rows]) for name in many}


def measure_source(artifact: Artifact, data: EvalSet, metric: Metric) -> tuple[Score, dict[str, Array]]:
    """The original's score and its outputs, which later metrics compare with."""
    outputs = run_source(artifact, data)
    return metric.measure(outputs, data.labels, outputs), outputs


@dataclasses.dataclass(frozen=True)
class Runnable:
    """A lowered model as a device would get it: for which runtime, with which options of the session.

    `exact` computes Q/DQ in float, for models whose INT8 this machine's kernels would get wrong.
    """

    artifact: Artifact
    runtime: str
    session_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    quantization: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    exact: bool = False


def run_lowered(model: Runnable, data: EvalSet) -> dict[str, Array]:
    """The lowered model's outputs in the layout of the original's, real numbers, stacked over the samples."""
    names = [spec.name for spec in model.artifact.outputs]
    if model.runtime == "onnxruntime" and data.batch == 1 and len(data) > 1 and not _any_moved(model, data):
        pairs = zip(data.specs, model.artifact.inputs, strict=True)
        arrays = {new.name: _fitted(data.arrays[old.name], old, new, model, moved=False) for old, new in pairs}
        if all(not isinstance(spec.shape[0], int) for spec in model.artifact.inputs if spec.shape):
            found = in_batches(lambda feeds: _run_onnx(model, feeds, names), arrays, len(data))
            if found is not None:
                return found
    feeds = lowered_feeds(model, data)
    with _engine(model):
        if model.runtime == "onnxruntime":
            rows = _run_onnx(model, feeds, names)
        else:
            rows = registry.target(model.runtime).run(model.artifact, feeds)  # type: ignore[arg-type] # read once
        return as_original(data.stack(rows), model, data)


def lowered_feeds(model: Runnable, data: EvalSet) -> Iterator[dict[str, Array]]:
    """The samples as the lowered model takes them: its layout, its quantised types."""
    pairs = list(zip(data.specs, model.artifact.inputs, strict=True))
    moved = _any_moved(model, data)
    for feed in data.feeds():
        yield {new.name: _fitted(feed[old.name], old, new, model, moved=moved) for old, new in pairs}


def as_original(outputs: Mapping[str, Array], model: Runnable, data: EvalSet) -> dict[str, Array]:
    """The lowered model's stacked outputs in the layout of the original's."""
    moved = _any_moved(model, data)
    return {
        spec.name: _moved_back(outputs[spec.name]) if moved and spec.layout == "nhwc" else outputs[spec.name]
        for spec in model.artifact.outputs
    }


def _any_moved(model: Runnable, data: EvalSet) -> bool:
    pairs = zip(data.specs, model.artifact.inputs, strict=True)
    return any(_is_moved(data.arrays[old.name], old, new) for old, new in pairs)


def exact_needed(path: Path) -> bool:
    """Whether this machine's kernels would saturate: signed weights on x86 without VNNI.

    The same MobileNetV2 scores 14.6 % with onnxruntime's AVX2 kernels and 76.4 % without them.
    """
    import platform

    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    if any(word in flags.split() for word in ("avx512_vnni", "avx_vnni")):
        return False
    return has_signed_weights(load_model(path, weights=False))


EXACT = Finding(
    "host-kernels",
    INFO,
    "scored with Q/DQ computed in float: this machine's kernels saturate with signed INT8 weights, the device's do not",
    "",
)


def _is_moved(array: Array, old: TensorSpec, new: TensorSpec) -> bool:
    """Whether the lowered model wants channels last where the samples have them first."""
    if new.layout != "nhwc" or array.ndim != _IMAGE or old.layout == "nhwc":
        return False
    wanted = [size for size in new.shape[1:] if isinstance(size, int)]
    return list(array.shape[1:]) != wanted and [*array.shape[2:], array.shape[1]] == wanted


def _fitted(value: Array, old: TensorSpec, new: TensorSpec, model: Runnable, *, moved: bool) -> Array:
    old = dataclasses.replace(old, layout="nchw" if moved and new.layout == "nhwc" else "nhwc")
    return fit(value, old, new, model.quantization.get(new.name))


def _moved_back(values: Array) -> Array:
    import numpy as np

    return np.moveaxis(values, -1, 1) if values.ndim == _IMAGE else values


@contextlib.contextmanager
def _engine(model: Runnable) -> Iterator[None]:
    """The INT8 kernels that a `.ptl` was packed for."""
    engine = model.session_options.get("quantized_engine")
    if engine:
        from packager.compress.quantize.torch_dynamic import use_engine

        use_engine(str(engine))
    yield


def _run_onnx(model: Runnable, feeds: Iterable[Mapping[str, Array]], names: list[str]) -> Iterator[dict[str, Array]]:
    """With onnxruntime's optimised kernels and the bundle's session options, as the device's runner does it; without them
    where this machine's would mislead. Raises ConvertError when the model does not run.
    """
    onnxruntime = need_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the machine may be shared
    if model.exact:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        str(model.artifact.path),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=model.session_options.get("disabled_optimizers"),
    )
    for feed in feeds:
        try:
            values = session.run(names, dict(feed))
        except Exception as error:
            raise ConvertError(f"the model does not run: {str(error)[:300]}", code="run-failed") from error
        yield dict(zip(names, values, strict=True))


def _run_bundle(bundle: Path, data: str | Path) -> tuple[dict[str, Array], EvalSet, list[Finding]]:
    from agent.contract.archive import BundleReader

    with tempfile.TemporaryDirectory(prefix="edgepack-evaluate-") as folder, BundleReader(bundle) as reader:
        manifest = reader.manifest
        reader.extract(folder)
        model = bundle_model(manifest, Path(folder))
        samples = load_eval(data, original_specs(manifest, model))
        findings = [EXACT] if model.exact else []
        return run_lowered(model, samples), samples, findings


def bundle_model(manifest: Manifest, folder: Path) -> Runnable:
    """The model of an unpacked bundle. Raises ConvertError for a runtime that the host cannot run."""
    runtime = manifest.runtime.name
    if runtime not in _FORMATS:
        raise ConvertError(
            f"{runtime} bundles cannot be evaluated on this machine", expected=f"one of: {', '.join(_FORMATS)}"
        )
    path = folder.joinpath(*manifest.model.split("/"))
    artifact = Artifact(
        format=_FORMATS[runtime],
        path=path,
        digest=manifest.files[manifest.model].sha256,
        inputs=tuple(manifest.inputs),
        outputs=tuple(manifest.outputs),
        quantized=bool(manifest.facts.get("quantized")),
    )
    exact = runtime == "onnxruntime" and artifact.quantized and exact_needed(path)
    return Runnable(artifact, runtime, manifest.session_options, manifest.facts.get("quantization") or {}, exact)


def original_specs(manifest: Manifest, model: Runnable) -> list[TensorSpec]:
    """The inputs as the evaluation set may have them: real numbers for quantised ones, sizes free for either layout."""
    specs = []
    for spec in manifest.inputs:
        scale = model.quantization.get(spec.name)
        dtype = "float32" if scale and spec.dtype in ("int8", "uint8", "int16") else spec.dtype
        shape, layout = list(spec.shape), spec.layout
        if spec.layout == "nhwc" and len(shape) == _IMAGE:
            # The samples may still have the channels where the model's source had them: their shape tells.
            shape, layout = [shape[0], *[f"{spec.name}_{axis}" for axis in range(1, _IMAGE)]], ""
        specs.append(dataclasses.replace(spec, dtype=dtype, shape=shape, layout=layout))
    return specs
