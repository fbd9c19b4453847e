"""Static INT8 for ONNX: Q/DQ pairs, per channel, ranges from calibration data (onnxruntime's quantiser, tamed)."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract import codec
from agent.contract.errors import ConvertError
from agent.contract.finding import INFO, WARNING, Finding
from packager.artifact import digest_files
from packager.compress.equalize import equalize
from packager.compress.quantize.onnx_biases import repair_graph
from packager.compress.quantize.onnx_correction import correct_biases
from packager.compress.quantize.onnx_mixed import ACTIVATIONS, COMPUTE, PASS_THROUGH, leave_in_float
from packager.compress.quantize.onnx_ranges import clip_ranges
from packager.compress.smooth import smooth
from packager.compress.smooth_channels import smooth_channels
from packager.onnx_model import all_nodes, external_files, load_model, need_onnxruntime, save_model, told

if TYPE_CHECKING:
    from packager.calibration import CalibrationData
    from packager.recipe import Recipe

# Where INT8 arithmetic pays (COMPUTE) and what costs nothing there; what else a network does keeps its accuracy in float.
# Activations belong to it: else a convolution's output is rounded in the range that it has before them, and again after.
_SCOPE = COMPUTE + PASS_THROUGH + ACTIVATIONS
_MOST_REPAIRS = 8
_WARNINGS, _ERRORS = 2, 3  # the severities of onnxruntime's own log; it warns by default


def quantize_static(
    source: Path,
    result: Path,
    calibration: CalibrationData,
    recipe: Recipe,
    progress: Callable[[str], None],
    extra: Mapping[str, Any] | None = None,
    cache: Path | None = None,
) -> list[Finding]:
    """Writes the quantised model to `result`. `recipe.weight_type` and `.activation_type` must be set; `extra` are more
    of the quantiser's own `extra_options`; `cache` is a folder in which prepared graphs and ranges are kept for the next time.

    A node on which the quantiser breaks stays in float, with a finding. Raises ConvertError when that does not help, or
    when nothing could be quantised.
    """
    need_onnxruntime()
    prepared = result.with_name("prepared.onnx")
    progress("preparing the graph")
    large = bool(external_files(load_model(source, weights=False)))
    findings = _prepare_once(source, prepared, cache, large=large)
    model = load_model(prepared)
    repair_graph(model)
    kinds = {node.name: node.op_type for node in model.graph.node}
    check_excluded(recipe, list(kinds))
    wanted = operators(recipe)
    if wanted is not None and not {node.op_type for node in all_nodes(model.graph)} & set(wanted) & set(COMPUTE):
        raise ConvertError(
            "nothing in this model can be quantised",
            expected=f"one of the operators {', '.join(COMPUTE)}",
            fix="use --recipe fp32 or fp16",
            code="nothing-to-quantise",
        )
    job = _Job(recipe, calibration, extra or {}, cache, large, progress)
    if large or recipe.scope == "all" or recipe.operators or any(kinds[name] not in COMPUTE for name in recipe.exclude):
        return [*findings, *_quantise_whole(model, prepared, result, job).findings]
    whole = _whole_once(model, prepared, dataclasses.replace(job, recipe=dataclasses.replace(recipe, exclude=())))
    mixed = load_model(whole.path)
    leave_in_float(mixed, load_model(whole.floating), {*recipe.exclude, *whole.excluded})
    save_model(mixed, result)
    return [*findings, *(one for one in whole.findings if one.code != "left-in-float" or not recipe.exclude)]


@dataclasses.dataclass(frozen=True)
class _Job:
    """What `quantize_static` was called with."""

    recipe: Recipe
    calibration: CalibrationData
    extra: Mapping[str, Any]
    cache: Path | None
    large: bool
    progress: Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class _Whole:
    """A graph with all its layers in INT8 (but for those on which the quantiser breaks), and the float graph it is of."""

    path: Path
    floating: Path
    excluded: tuple[str, ...]
    findings: tuple[Finding, ...]


def _whole_once(model: Any, prepared: Path, job: _Job) -> _Whole:
    """From the cache, where it has been made for another choice of layers."""
    settings = json.dumps([codec.encode(dataclasses.replace(job.recipe, name="", steps=())), sorted(job.extra)])
    name = hashlib.sha256((digest_files([prepared]) + settings).encode()).hexdigest()[:16]
    folder = job.cache or prepared.parent
    path, told = folder / f"whole-{name}.onnx", folder / f"whole-{name}.json"
    floating = folder / f"float-{name}.onnx"
    if told.exists():
        excluded, rows = json.loads(told.read_text(encoding="utf-8"))
        return _Whole(path, floating, tuple(excluded), tuple(codec.decode(Finding, row, "finding") for row in rows))
    made = _quantise_whole(model, prepared, path, job)
    made.floating.replace(floating)
    told.write_text(json.dumps([made.excluded, codec.encode(list(made.findings))]), encoding="utf-8")
    return dataclasses.replace(made, floating=floating)


def _quantise_whole(model: Any, prepared: Path, result: Path, job: _Job) -> _Whole:
    """Writes `result`; `model` is the graph in `prepared`, repaired."""
    recipe, calibration = job.recipe, job.calibration
    findings, floating = _repair(model, prepared, calibration, recipe)
    options = {**_options(recipe, job.extra), "use_external_data_format": job.large}
    options["calibration_cache_path"] = _ranges(prepared, calibration, recipe, options, job.cache, job.progress)
    excluded = list(recipe.exclude)
    while True:
        error = _quantize(prepared, result, calibration, {**options, "nodes_to_exclude": excluded})
        if error is None:
            return _Whole(result, floating, tuple(excluded), tuple(findings))
        culprits = [name for name in _culprits(error, model) if name not in excluded]
        if not culprits or len(excluded) > len(recipe.exclude) + _MOST_REPAIRS:
            raise _explain(error, model) from error
        job.progress(f"leaving {', '.join(culprits)} in float")
        excluded += culprits
        text = f"the quantiser breaks on {', '.join(culprits)} ({told(error, 200)}): left in float"
        findings.append(Finding("left-in-float", WARNING, text, "measure whether INT8 still pays: edgepack bench"))


def _repair(model: Any, prepared: Path, calibration: CalibrationData, recipe: Recipe) -> tuple[list[Finding], Path]:
    """What is done to the float graph before it is quantised, written to `prepared`; and the file of that graph with the
    biases as they were.
    """
    told = []
    floating = prepared.with_name("floating.onnx")
    if recipe.equalize:
        groups = equalize(model, calibration)
        text = f"{groups} activations (or sums of some) have the same range in the weights before and after them"
        told.append(Finding("equalised", INFO, text, ""))
    if recipe.smooth:
        groups, products = smooth_channels(model, calibration, recipe), smooth(model, calibration, recipe)
        text = f"{groups} activations have their wide channels narrowed by what makes them"
        if products:
            text += f", {products} matrix products take theirs scaled down, by a multiplication before them"
        told.append(Finding("smoothed", INFO, text, ""))
    save_model(model, floating)
    if recipe.bias_correction:
        layers = correct_biases(model, calibration, recipe)
        told.append(
            Finding("biases-corrected", INFO, f"the biases of {layers} layers take back what rounding adds", "")
        )
    save_model(model, prepared)
    return told, floating


def _prepare_once(source: Path, prepared: Path, cache: Path | None, *, large: bool) -> list[Finding]:
    if cache is None or large:
        return _prepare(source, prepared, large=large)
    kept = cache / f"prepared-{digest_files([source])[:16]}.onnx"
    if kept.exists():
        prepared.write_bytes(kept.read_bytes())
        return []
    findings = _prepare(source, prepared, large=large)
    kept.write_bytes(prepared.read_bytes())
    return findings


def _ranges(
    prepared: Path,
    calibration: CalibrationData,
    recipe: Recipe,
    options: Mapping[str, Any],
    cache: Path | None,
    progress: Callable[[str], None],
) -> Path | None:
    """The file of ranges: measured already, or where the quantiser shall write what it measures.

    Raises ConvertError when a run for ranges alone fails.
    """
    if cache is None and recipe.method == "minmax":
        progress(f"calibrating on {calibration.samples} samples")
        return None
    kinds = "all" if recipe.scope == "all" else "-".join(sorted(operators(recipe) or ()))
    base = digest_files([prepared])[:16] + hashlib.sha256(kinds.encode()).hexdigest()[:8]
    folder = cache or prepared.parent
    named = f"{recipe.method}-{recipe.percentile:g}" if recipe.method == "percentile" else recipe.method
    symmetric = bool(options["extra_options"]["ActivationSymmetric"])
    path = folder / f"ranges-{base}-{named}{'-symmetric' if symmetric and recipe.method != 'minmax' else ''}.json"
    if path.exists():
        return path
    progress(f"calibrating on {calibration.samples} samples")
    if recipe.method != "minmax":
        plain = folder / f"ranges-{base}-minmax.json"
        if not plain.exists():
            with tempfile.TemporaryDirectory(prefix="edgepack-ranges-") as place:
                given = {**options, "calibration_cache_path": plain}
                error = _quantize(prepared, Path(place) / "unused.onnx", calibration, given)
            if error is not None and not plain.exists():
                raise _explain(error, load_model(prepared)) from error
        clip_ranges(prepared, plain, path, calibration, recipe, symmetric=symmetric)
    return path


def _options(recipe: Recipe, extra: Mapping[str, Any]) -> dict[str, Any]:
    from onnxruntime import quantization

    wanted = operators(recipe)
    types = {"int8": quantization.QuantType.QInt8, "uint8": quantization.QuantType.QUInt8}
    return {
        "quant_format": quantization.QuantFormat.QDQ,
        "op_types_to_quantize": list(wanted) if wanted is not None else None,
        "per_channel": recipe.per_channel,
        "activation_type": types[recipe.activation_type],
        "weight_type": types[recipe.weight_type],
        "calibrate_method": quantization.CalibrationMethod.MinMax,  # whose ranges are drawn in afterwards
        "extra_options": {**_extra(recipe), **extra},
    }


def _quantize(
    prepared: Path, result: Path, calibration: CalibrationData, options: Mapping[str, Any]
) -> Exception | None:
    """Quantises, then loads the result and runs a sample through it; what went wrong, if anything did."""
    from onnxruntime import quantization

    try:
        with quiet():
            quantization.quantize_static(str(prepared), str(result), _Reader(calibration), **options)
            _loads(result).run(None, next(calibration.feeds()))
    except Exception as error:  # noqa: BLE001 - the quantiser raises assertion, key, value and runtime errors alike
        return error
    return None


def _culprits(error: Exception, model: Any) -> list[str]:
    """The nodes that compute and that the error names, by their own name or by a tensor of theirs."""
    text = f" {error} "
    found = []
    for node in model.graph.node:
        names = [node.name, *node.input, *node.output] if node.op_type in COMPUTE else []
        if any(re.search(rf"[\s'\"(]{re.escape(name)}(?:_quantized|_DequantizeLinear|_QuantizeLinear|[\s'\"),.:])", text)
               for name in names if name):  # fmt: skip
            found.append(node.name)
    return found


def operators(recipe: Recipe) -> tuple[str, ...] | None:
    """The operator types to quantise; None for all that the quantiser knows."""
    if recipe.operators:
        return recipe.operators
    return None if recipe.scope == "all" else _SCOPE


def check_excluded(recipe: Recipe, names: list[str]) -> None:
    """Raises UsageError for a node to leave out that is not there."""
    from agent.contract.errors import nearest, unknown_name

    for name in recipe.exclude:
        if name not in names:
            near = nearest(name, names)
            raise unknown_name("node in the recipe's exclude", name, [near] if near else names[:20])


def _prepare(source: Path, prepared: Path, *, large: bool) -> list[Finding]:
    from onnxruntime.quantization.shape_inference import quant_pre_process

    options = {"skip_symbolic_shape": True, "save_as_external_data": large, "all_tensors_to_one_file": large}

    # Symbolic shape inference needs sympy and fails on many graphs; onnx's own inference serves static shapes.
    try:
        with quiet():
            quant_pre_process(str(source), str(prepared), **options)
            _loads(prepared)
    except Exception as error:  # noqa: BLE001 - the optimiser may fail in any way; the plain graph is the known way out
        with quiet():
            quant_pre_process(str(source), str(prepared), skip_optimization=True, **options)
        text = f"onnxruntime's optimiser broke the graph before quantisation ({told(error, 200)}): quantised without it"
        return [Finding("unoptimised", INFO, text, "")]
    return []


def _loads(path: Path) -> Any:
    onnxruntime = need_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _extra(recipe: Recipe) -> dict[str, Any]:
    extra: dict[str, Any] = {
        "WeightSymmetric": recipe.weight_type == "int8",
        "ActivationSymmetric": recipe.activation_type == "int8" and not recipe.asymmetric,
    }
    if recipe.float_products:
        # onnxruntime fuses them into MatMulIntegerToFloat and QGemm, which give floats; a convolution has no such kernel.
        extra["OpTypesToExcludeOutputQuantization"] = ["MatMul", "Gemm"]
    return extra


def _explain(error: Exception, model: Any) -> ConvertError:
    text = str(error) or repr(error)
    named = {
        node.name for node in all_nodes(model.graph) if node.name and re.search(rf"\b{re.escape(node.name)}\b", text)
    }
    return ConvertError(
        f"onnxruntime's quantiser failed: {text[:600]}",
        where=f"node {', '.join(sorted(named))}" if named else "",
        fix='leave that node in float (a recipe file with exclude = ["NODE"]), or use --recipe int8-per-tensor',
        code="quantiser-failed",
    )


class _Reader:
    """onnxruntime's CalibrationDataReader, by its shape: `get_next` until None."""

    def __init__(self, data: CalibrationData) -> None:
        self._data = data
        self._feeds = data.feeds()

    def __len__(self) -> int:
        return len(self._data)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)

    def set_range(self, start_index: int, end_index: int) -> None:
        feeds = list(self._data.feeds())
        self._feeds = iter(feeds[start_index:end_index])

    def rewind(self) -> None:
        self._feeds = self._data.feeds()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The quantiser prints and logs advice that edgepack has already taken; stdout is ours."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    runtime = need_onnxruntime()
    runtime.set_default_logger_severity(_ERRORS)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        runtime.set_default_logger_severity(_WARNINGS)
        logging.disable(level)


def prepared_graph(source: Path, place: Path, cache: Path | None) -> Any:
    """The graph as `quantize_static` will quantise it, before any change that a recipe asks for."""
    need_onnxruntime()
    _prepare_once(source, place, cache, large=bool(external_files(load_model(source, weights=False))))
    model = load_model(place)
    repair_graph(model)
    return model
