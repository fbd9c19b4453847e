"""TFLite's precisions by ai-edge-quantizer: float16, dynamic INT8, full INT8 and 16x8, with true ranges and a chosen scope."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError, EdgepackError, nearest, unknown_name
from agent.contract.finding import INFO, WARNING, Finding
from packager.compress.quantize.tflite_ranges import kept_ranges
from packager.compress.quantize.tflite_repairs import corrected, rescaled
from packager.compress.tflite_channels import FACTOR
from packager.tflite_graph import float_operators
from packager.tflite_model import constant, is_quantized, need, operator_name, parse_model, quiet, read_model, text

if TYPE_CHECKING:
    from packager.compress.quantize.tflite_ranges import Samples
    from packager.recipe import Recipe

# Where INT8 arithmetic pays; what else a network does keeps its accuracy in float.
_FILTERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV")
COMPUTE = (*_FILTERS, "FULLY_CONNECTED", "BATCH_MATMUL")
_WHOLE = "BATCH_MATMUL"
_MATRIX = ("FULLY_CONNECTED", "BATCH_MATMUL", "EMBEDDING_LOOKUP")
# Exact on quantised values: between two quantised operators they cost nothing, in float two conversions.
_PASS_THROUGH = ("RESHAPE", "TRANSPOSE", "MAX_POOL_2D", "PAD", "SQUEEZE")
# In INT8 only where all around them is: sums, products and means of a convolutional net between its convolutions. In float
# each would cost two conversions. Those of a transformer stand beside a LayerNorm or a softmax, which stay in float: so do
# they. Measured by benchmarks/tflite_scope.py: MobileNetV2 loses its 27 conversions so, for the same score and time. Not so
# HARD_SWISH and RELU: XNNPACK has them in float only. With LiteRT's own kernels between PP-LCNet took 5.8 times as long.
_JOINING = (
    "ADD",
    "AVERAGE_POOL_2D",
    "CONCATENATION",
    "LOGISTIC",
    "MAXIMUM",
    "MEAN",
    "MUL",
    "RESIZE_BILINEAR",
    "RESIZE_NEAREST_NEIGHBOR",
)
_AEQ_NAMES = {"TRANSPOSE_CONV": "CONV_2D_TRANSPOSE"}
_HALF_MOST = 65504.0
_FEW = 1024  # values; below it TFLiteConverter leaves weights in float too (it says minimum size)
_ALL = ".*"


def quantize_tflite(
    source: Path,
    result: Path,
    recipe: Recipe,
    feeds: Samples | None,
    progress: Callable[[str], None],
    cache: Path | None = None,
) -> list[Finding]:
    """Writes the model in the recipe's precision to `result`.

    `feeds` are calibration samples by input name, as the file takes them; static precisions need them. `cache` is a
    folder in which the ranges are kept for the next recipe. Raises ConvertError
    when the quantiser fails or finds nothing to quantise, UsageError for a node to leave out that is not there.
    """
    quantizer_module = need("ai_edge_quantizer.quantizer")
    raw, model = source.read_bytes(), read_model(source)
    findings: list[Finding] = []
    ranges = None
    try:
        with quiet():
            if recipe.needs_calibration and feeds is not None:
                progress("calibrating")
                raw, findings = rescaled(raw, recipe, feeds, cache)
                model = parse_model(raw)  # smoothing may have put operators in
                # Ranges of all that any recipe may quantise: what is left out this time may come in the next.
                whole = quantizer_module.Quantizer(raw)
                _RULES[recipe.precision](whole, model, dataclasses.replace(recipe, exclude=()))
                ranges = kept_ranges(raw, whole.get_quantization_recipe(), feeds, recipe, cache)
                # Corrected biases move a range by less than a step: it need not be measured for each choice of layers.
                raw, told = corrected(raw, recipe, recipe.operators or COMPUTE, feeds, cache)
                findings += told
            quantizer = quantizer_module.Quantizer(raw)
            findings += _RULES[recipe.precision](quantizer, model, recipe)
            progress("quantising")
            made = quantizer.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    except EdgepackError:
        raise
    except Exception as error:
        # The quantiser raises value, key, index and runtime errors alike.
        raise _explain(error, model) from error
    quantized = bytes(made.quantized_model)
    after = parse_model(quantized, "the quantised model")
    if recipe.precision != "fp16" and not is_quantized(after):
        raise _nothing(recipe)
    result.write_bytes(quantized)
    return [*findings, *float_findings(after, recipe)]


def _half(quantizer: Any, model: Any, recipe: Recipe) -> list[Finding]:
    del recipe
    _check_half(model)
    key = need("ai_edge_quantizer.algorithm_manager").AlgorithmName.FLOAT_CASTING
    quantizer.add_weight_only_config(_ALL, _op_name("*"), num_bits=16, algorithm_key=key)
    return []


def _dynamic(quantizer: Any, model: Any, recipe: Recipe) -> list[Finding]:
    """Matrix products take their activations' range at run time; convolutions, which that ruins, keep float arithmetic
    and are stored in INT8.
    """
    names = {operator_name(model, op) for graph in model.subgraphs for op in graph.operators}
    wanted = recipe.operators or _MATRIX
    grain = _grain(recipe)
    for name in sorted(names & set(wanted)):
        quantizer.add_dynamic_config(_ALL, _op_name(name), num_bits=8, granularity=_grain(recipe, name))
    stored = sorted((names & set(COMPUTE)) - set(wanted))
    for name in stored:
        _store(quantizer, name, grain)
    if not names & set(wanted) and not stored:
        raise _nothing(recipe)
    _exclude(quantizer, model, recipe)
    if not stored:
        return []
    told = f"{', '.join(stored)}: weights in INT8, arithmetic in float, because dynamic INT8 ruins convolutions"
    return [Finding("weights-only", INFO, told, "--recipe int8 with --calibration computes them in INT8")]


def _store(quantizer: Any, name: str, grain: Any) -> None:
    """Weights in INT8, arithmetic in float. Weights of few values (depthwise filters) save next to nothing that way and lose
    the most: they stay as they are, as TFLiteConverter leaves them.
    """
    qtyping = need("ai_edge_quantizer.qtyping")
    weights = qtyping.TensorQuantizationConfig(num_bits=8, symmetric=True, granularity=grain)
    config = qtyping.OpQuantizationConfig(
        weight_tensor_config=weights,
        compute_precision=qtyping.ComputePrecision.FLOAT,
        explicit_dequantize=True,
        min_weight_elements=_FEW,
    )
    quantizer.update_quantization_recipe(_ALL, _op_name(name), config)


def _static(quantizer: Any, model: Any, recipe: Recipe) -> list[Finding]:
    bits = 16 if recipe.precision == "int16x8" else 8
    settings = {"activation_num_bits": bits, "weight_num_bits": 8, "weight_granularity": _grain(recipe)}
    if recipe.scope == "all" and not recipe.operators:
        quantizer.add_static_config(_ALL, _op_name("*"), **settings)
        quantizer.add_static_config(_ALL, _op_name(_WHOLE), **settings | {"weight_granularity": _grain(recipe, _WHOLE)})
    else:
        picked = chosen_operators(model, recipe.operators or COMPUTE, recipe.exclude)
        if not picked:
            raise _nothing(recipe)
        for name, scope in picked:
            own = settings | {"weight_granularity": _grain(recipe, name)}
            quantizer.add_static_config(f"^{re.escape(scope)}$", _op_name(name), **own)
    for side in ("INPUT", "OUTPUT"):
        if recipe.io == "float":
            quantizer.update_quantization_recipe(_ALL, _op_name(side), algorithm_key="no_quantize")
        else:
            quantizer.add_static_config(_ALL, _op_name(side), **settings)
    _exclude(quantizer, model, recipe)
    return []


_RULES = {"fp16": _half, "int8-dynamic": _dynamic, "int8": _static, "int16x8": _static}


def chosen_operators(model: Any, wanted: Iterable[str], exclude: Iterable[str] = ()) -> list[tuple[str, str]]:
    """The operators to quantise, as (name, scope): the wanted kinds, what passes their values on unchanged, and what
    stands between them on all sides. Those whose first output is named in `exclude` stay in float, and so does what stood
    between them; nor are convolutions with computed weights quantised, nor multiplications that smoothing put in, whose
    numbers differ more than 8 bits can tell.
    """
    graph = model.subgraphs[0]
    kinds = [operator_name(model, op) for op in graph.operators]
    chain, left = _Chain(graph, kinds), set(exclude)
    names = [text(graph.tensors[op.outputs[0]].name) if len(op.outputs) else "" for op in graph.operators]
    free = [name not in left and not name.endswith(FACTOR) for name in names]
    for place, op in enumerate(graph.operators):  # LiteRT refuses a convolution whose weights have a zero point
        free[place] &= kinds[place] not in _FILTERS or constant(model, graph.tensors[op.inputs[1]]) is not None
    joined = {place for place, kind in enumerate(kinds) if kind in _JOINING and kind not in wanted and free[place]}
    while True:
        multiplied = [kind in set(wanted) and free[place] for place, kind in enumerate(kinds)]
        taken = chain.passed_on([one or place in joined for place, one in enumerate(multiplied)])
        lonely = {place for place in joined if not chain.between(place, taken)}
        if not lonely:
            break
        joined -= lonely
    scopes = need("ai_edge_quantizer.utils.tfl_flatbuffer_utils").get_op_scope
    return [(kinds[i], scopes(op, graph.tensors)) for i, op in enumerate(graph.operators) if taken[i]]


class _Chain:
    """Which operator makes and which use each tensor of a graph."""

    def __init__(self, graph: Any, kinds: list[str]) -> None:
        self.operators, self.kinds = graph.operators, kinds
        self.made_by = {int(out): place for place, op in enumerate(graph.operators) for out in op.outputs}
        self.users: dict[int, list[int]] = {int(out): [] for out in graph.outputs}
        self.ends = set(self.users) | {int(index) for index in graph.inputs}
        for place, op in enumerate(graph.operators):
            for index in op.inputs:
                self.users.setdefault(int(index), []).append(place)

    def passed_on(self, taken: list[bool]) -> list[bool]:
        """With those that only move values which a taken one makes, or which only taken ones use."""
        taken = list(taken)
        for place, op in enumerate(self.operators):
            source = self.made_by.get(int(op.inputs[0])) if len(op.inputs) else None
            taken[place] |= self.kinds[place] in _PASS_THROUGH and source is not None and taken[source]
        for place in reversed(range(len(taken))):
            following = self._following(place)
            taken[place] |= (
                self.kinds[place] in _PASS_THROUGH and bool(following) and all(taken[one] for one in following)
            )
        return taken

    def between(self, place: int, taken: list[bool]) -> bool:
        """Whether all that it computes with comes from taken operators, and all that it makes goes to such."""
        op = self.operators[place]
        made = [self.made_by[int(index)] for index in op.inputs if int(index) in self.made_by]
        following = self._following(place)
        ends = any(int(index) in self.ends for index in (*op.inputs, *op.outputs))
        return bool(made) and bool(following) and not ends and all(taken[one] for one in (*made, *following))

    def _following(self, place: int) -> list[int]:
        outputs = self.operators[place].outputs
        return self.users.get(int(outputs[0]), []) if len(outputs) else []


def _op_name(name: str) -> Any:
    return need("ai_edge_quantizer.qtyping").TFLOperationName(_AEQ_NAMES.get(name, name))


def _grain(recipe: Recipe, name: str = "") -> Any:
    """LiteRT's BATCH_MATMUL knows one scale for its weights and computes nonsense with one per channel."""
    kinds = need("ai_edge_quantizer.qtyping").QuantGranularity
    return kinds.CHANNELWISE if recipe.per_channel and name != _WHOLE else kinds.TENSORWISE


def _exclude(quantizer: Any, model: Any, recipe: Recipe) -> None:
    scope_of = need("ai_edge_quantizer.utils.tfl_flatbuffer_utils").get_op_scope
    known = {
        text(graph.tensors[op.outputs[0]].name): scope_of(op, graph.tensors)
        for graph in model.subgraphs
        for op in graph.operators
    }
    for name in recipe.exclude:
        if name not in known:
            near = nearest(name, known)
            raise unknown_name("tensor in the recipe's exclude", name, [near] if near else sorted(known)[:20])
        quantizer.update_quantization_recipe(f"^{re.escape(known[name])}$", _op_name("*"), algorithm_key="no_quantize")


def _check_half(model: Any) -> None:
    for graph in model.subgraphs:
        for op in graph.operators:
            if operator_name(model, op) not in (*COMPUTE, "EMBEDDING_LOOKUP"):
                continue
            for tensor in (graph.tensors[index] for index in op.inputs if index >= 0):
                values = constant(model, tensor)
                if values is None or values.dtype != "float32" or not values.size or abs(values).max() <= _HALF_MOST:
                    continue
                raise ConvertError(
                    f"the weights {text(tensor.name)!r} reach {abs(values).max():.3g}, beyond float16",
                    expected=f"values up to {_HALF_MOST:.0f}",
                    fix="use --recipe fp32",
                    code="half-overflow",
                )


def float_findings(model: Any, recipe: Recipe) -> list[Finding]:
    """What a recipe of integers leaves in float, and why."""
    if recipe.precision not in ("int8", "int16x8"):
        return []
    left = float_operators(model)
    if not left:
        return []
    told = ", ".join(f"{count} {name}" for name, count in sorted(left.items()))
    if recipe.scope != "all":
        why = _why_float(left)
        return [Finding("float-operators", INFO, f"computed in float: {told}", why)]
    why = "there is no integer form of these: replace them in the model"
    return [Finding("float-operators", WARNING, f"left in float although everything was to be quantised: {told}", why)]


def _why_float(left: Collection[str]) -> str:
    known = {one.value for one in need("ai_edge_quantizer.qtyping").TFLOperationName}
    never = sorted(name for name in left if _AEQ_NAMES.get(name, name) not in known)
    said = [f"ai-edge-quantizer does not quantise {', '.join(never)}"] if never else []
    if set(left) - set(never):
        said.insert(0, 'the scope is what multiplies and stands between it (scope = "all" in a recipe file takes more)')
    return "; ".join(said)


def _nothing(recipe: Recipe) -> ConvertError:
    return ConvertError(
        f"{recipe.name} was asked for, but nothing in this model can be quantised",
        expected=f"one of the operators {', '.join(COMPUTE)}",
        fix="use --recipe fp32 or fp16",
        code="nothing-to-quantise",
    )


def _explain(error: Exception, model: Any) -> ConvertError:
    told = str(error) or repr(error)
    named = sorted(
        {text(t.name) for graph in model.subgraphs for t in graph.tensors if t.name and text(t.name) in told}
    )
    return ConvertError(
        f"ai-edge-quantizer failed: {told[:600]}",
        where=f"tensor {', '.join(named[:3])}" if named else "",
        fix='leave that operator in float (a recipe file with exclude = ["TENSOR"]), or use --recipe fp16',
        code="quantiser-failed",
    )
