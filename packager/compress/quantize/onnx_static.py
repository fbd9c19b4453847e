"""Static INT8 for ONNX: Q/DQ pairs, per channel, ranges from calibration data (onnxruntime's quantiser, tamed)."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError
from agent.contract.finding import INFO, WARNING, Finding
from packager.artifact import digest_files
from packager.compress.equalize import equalize
from packager.compress.quantize.onnx_biases import repair_graph
from packager.compress.quantize.onnx_correction import correct_biases
from packager.compress.quantize.onnx_ranges import clip_ranges
from packager.onnx_model import all_nodes, external_files, load_model, need_onnxruntime, save_model, told

if TYPE_CHECKING:
    from packager.calibration import CalibrationData
    from packager.recipe import Recipe

# Where INT8 arithmetic pays; what else a network does keeps its accuracy in float.
COMPUTE = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_PASS_THROUGH = ("MaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze")  # exact on quantised values
_CHUNK = 16
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
    findings: list[Finding] = []
    prepared = result.with_name("prepared.onnx")
    progress("preparing the graph")
    large = bool(external_files(load_model(source, weights=False)))
    findings += _prepare_once(source, prepared, cache, large=large)
    wanted = operators(recipe)
    model = load_model(prepared)
    findings += _repair(model, prepared, calibration, recipe)
    present = {node.op_type for node in all_nodes(model.graph)}
    check_excluded(recipe, [node.name for node in model.graph.node])
    if wanted is not None and not present & set(wanted) & set(COMPUTE):
        raise ConvertError(
            "nothing in this model can be quantised",
            expected=f"one of the operators {', '.join(COMPUTE)}",
            fix="use --recipe fp32 or fp16",
            code="nothing-to-quantise",
        )
    options = {**_options(recipe, calibration, extra or {}), "use_external_data_format": large}
    options["calibration_cache_path"] = _ranges(prepared, calibration, recipe, options, cache, progress)
    excluded = list(recipe.exclude)
    while True:
        error = _quantize(prepared, result, calibration, {**options, "nodes_to_exclude": excluded})
        if error is None:
            return findings
        culprits = [name for name in _culprits(error, model) if name not in excluded]
        if not culprits or len(excluded) > len(recipe.exclude) + _MOST_REPAIRS:
            raise _explain(error, model) from error
        progress(f"leaving {', '.join(culprits)} in float")
        excluded += culprits
        text = f"the quantiser breaks on {', '.join(culprits)} ({told(error, 200)}): left in float"
        findings.append(Finding("left-in-float", WARNING, text, "measure whether INT8 still pays: edgepack bench"))


def _repair(model: Any, prepared: Path, calibration: CalibrationData, recipe: Recipe) -> list[Finding]:
    """What is done to the float graph before it is quantised; written to `prepared`."""
    repair_graph(model)
    told = []
    if recipe.equalize:
        pairs = equalize(model)
        told.append(Finding("equalised", INFO, f"{pairs} pairs of convolutions share their channels' ranges", ""))
    if recipe.bias_correction:
        layers = correct_biases(model, calibration, recipe)
        told.append(
            Finding("biases-corrected", INFO, f"the biases of {layers} layers take back what rounding adds", "")
        )
    save_model(model, prepared)
    return told


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
    if cache is None and recipe.method != "mse":
        progress(f"calibrating on {calibration.samples} samples")
        return None
    kinds = "all" if recipe.scope == "all" else "-".join(sorted(set(operators(recipe) or ()) - set(_PASS_THROUGH)))
    base = digest_files([prepared])[:16] + hashlib.sha256(kinds.encode()).hexdigest()[:8]
    folder = cache or prepared.parent
    named = f"{recipe.method}-{recipe.percentile:g}" if recipe.method == "percentile" else recipe.method
    path = (
        folder / f"ranges-{base}-{named}{'-symmetric' if options['extra_options']['ActivationSymmetric'] else ''}.json"
    )
    if path.exists():
        return path
    progress(f"calibrating on {calibration.samples} samples")
    if recipe.method == "mse":
        plain = folder / f"ranges-{base}-minmax.json"
        if not plain.exists():
            with tempfile.TemporaryDirectory(prefix="edgepack-ranges-") as place:
                given = {**options, "calibration_cache_path": plain}
                error = _quantize(prepared, Path(place) / "unused.onnx", calibration, given)
            if error is not None and not plain.exists():
                raise _explain(error, load_model(prepared)) from error
        symmetric = bool(options["extra_options"]["ActivationSymmetric"])
        clip_ranges(prepared, plain, path, calibration, symmetric=symmetric)
    return path


def _options(recipe: Recipe, calibration: CalibrationData, extra: Mapping[str, Any]) -> dict[str, Any]:
    from onnxruntime import quantization

    wanted = operators(recipe)
    types = {"int8": quantization.QuantType.QInt8, "uint8": quantization.QuantType.QUInt8}
    return {
        "quant_format": quantization.QuantFormat.QDQ,
        "op_types_to_quantize": list(wanted) if wanted is not None else None,
        "per_channel": recipe.per_channel,
        "activation_type": types[recipe.activation_type],
        "weight_type": types[recipe.weight_type],
        "calibrate_method": _method(recipe),
        "extra_options": {**_extra(recipe, len(calibration)), **extra},
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
    return None if recipe.scope == "all" else COMPUTE + _PASS_THROUGH


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


def _method(recipe: Recipe) -> Any:
    from onnxruntime.quantization import CalibrationMethod

    return {
        "minmax": CalibrationMethod.MinMax,
        "mse": CalibrationMethod.MinMax,  # whose ranges are drawn in afterwards
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }[recipe.method]


def _extra(recipe: Recipe, samples: int) -> dict[str, Any]:
    extra: dict[str, Any] = {
        "WeightSymmetric": recipe.weight_type == "int8",
        "ActivationSymmetric": recipe.activation_type == "int8" and not recipe.asymmetric,
    }
    if recipe.method not in ("minmax", "mse"):
        # Histograms of all samples at once need all activations in memory. The chunk must not divide the number of
        # samples: onnxruntime 1.32 then finds an empty last chunk and says "No data is collected".
        extra["CalibMaxIntermediateOutputs"] = next(n for n in range(_CHUNK, 3 * _CHUNK) if samples % n)
    if recipe.method == "percentile":
        extra["CalibPercentile"] = recipe.percentile
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
