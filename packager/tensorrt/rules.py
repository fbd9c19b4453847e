"""The static rules: what TensorRT's parser refuses, said with the node, the operator and what to do, before anything runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from packager.tensorrt import operators
from packager.tensorrt.graph import Constants, attribute, input_at, node_label
from packager.tensorrt.versions import show

if TYPE_CHECKING:
    from packager.shapes import Range

OK, REJECTED, UNVERIFIED, NOT_CHECKED = "ok", "rejected", "unverified", "not-checked"
_STANDARD = ("", "ai.onnx")
# docs/operators.md at 8.5 and 10.15: DOUBLE is taken with a silent cast to FLOAT; the rest is not taken at all.
_TYPES = {"float32", "float16", "int8", "int32", "int64", "bool", "uint8", "float64"}
_REDUCED = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")


@dataclasses.dataclass(frozen=True)
class NodeVerdict:
    """One node that is not simply `ok`: `rejected` or `unverified`, why, and the way out."""

    verdict: str
    node: str
    operator: str
    reason: str
    fix: str = ""

    def __str__(self) -> str:
        """Node 'x' (Op): why."""
        return f"{self.operator} {self.node!r}: {self.reason}"


def check(model: Any, version: tuple[int, int], ranges: Mapping[str, Range]) -> list[NodeVerdict]:
    """Every rule that the model breaks for this TensorRT, in the order of the graph."""
    local = {(function.domain, function.name) for function in model.functions}
    found = list(check_inputs(model, version, ranges))
    found += _walk(model.graph, version, local, None)
    for function in model.functions:
        for node in function.node:
            found += _operator(node, version, local)
    return found


def _walk(
    graph: Any, version: tuple[int, int], local: set[tuple[str, str]], outer: Constants | None
) -> Iterator[NodeVerdict]:
    constants = Constants(graph, outer)
    for node in graph.node:
        yield from _operator(node, version, local)
        rule = _RULES.get(node.op_type) if node.domain in _STANDARD else None
        for reason, fix in rule(node, constants, version) if rule else ():
            yield NodeVerdict(REJECTED, node_label(node), node.op_type, reason, fix)
        for one in node.attribute:
            for inner in ([one.g] if one.HasField("g") else []) + list(one.graphs):
                yield from _walk(inner, version, local, constants)


def _operator(node: Any, version: tuple[int, int], local: set[tuple[str, str]]) -> Iterator[NodeVerdict]:
    if (node.domain, node.op_type) in local:
        return
    label, name = node_label(node), node.op_type
    if name in operators.PLUGINS and not (node.domain in _STANDARD and operators.takes(name, version)):
        yield NodeVerdict(
            UNVERIFIED, label, name, "a plugin of TensorRT's own: only the device can tell", "try it on the device"
        )
        return
    if node.domain not in _STANDARD:
        reason = f"TensorRT has no operator {node.domain}.{name}"
        fix = operators.ADVICE.get(
            name, "export the model without this runtime's own operators (no fusion before export)"
        )
        yield NodeVerdict(REJECTED, label, f"{node.domain}.{name}", reason, fix)
        return
    if operators.takes(name, version):
        return
    first = operators.since(name)
    if first is not None:
        reason, fix = (
            f"taken from TensorRT {show(first)} on",
            "use a profile of a newer JetPack, or compose it of older ones",
        )
    else:
        reason, fix = "no TensorRT takes it", "replace it by other operators, or keep it out of the network"
    yield NodeVerdict(REJECTED, label, name, reason, operators.ADVICE.get(name, fix))


def check_inputs(model: Any, version: tuple[int, int], ranges: Mapping[str, Range]) -> Iterator[NodeVerdict]:
    """Types of inputs and outputs, and an optimisation profile for every free dimension."""
    from packager.onnx_model import model_inputs, model_outputs

    for spec in (*model_inputs(model), *model_outputs(model)):
        if spec.dtype and spec.dtype not in _TYPES | ({"bfloat16"} if version >= (10, 0) else set()):
            yield NodeVerdict(
                REJECTED, spec.name, "tensor", f"TensorRT has no type {spec.dtype}", "cast it outside the network"
            )
        if spec.dtype == "uint8" and version < (8, 5):
            yield NodeVerdict(REJECTED, spec.name, "tensor", "no uint8 inputs before TensorRT 8.5", "use float32")
    for spec in model_inputs(model):
        free = [str(size) for size in spec.shape if not isinstance(size, int)]
        if free and spec.name not in ranges:
            example = "x".join(str(size) if isinstance(size, int) else "1" for size in spec.shape)
            yield NodeVerdict(
                REJECTED,
                spec.name,
                "input",
                f"free dimensions ({', '.join(free)}) without an optimisation profile",
                f"--shape {spec.name}={example} fixes them; --shape {spec.name}=MIN:OPT:MAX leaves a range",
            )


_Faults = Iterator[tuple[str, str]]


def _quantize(node: Any, constants: Constants, version: tuple[int, int]) -> _Faults:
    del version
    scale = input_at(node, 1)
    if scale and constants.get(scale) is None:
        yield "its scale is computed in the graph", "quantise with fixed ranges: --recipe int8 on the float model"
    point = constants.get(input_at(node, 2)) if input_at(node, 2) else None
    if point is not None and point.dtype.name == "int32":
        yield "a quantised bias (int32)", "leave the bias in float: --recipe int8 on the float model does"
    elif point is not None and point.dtype.name in ("uint8", "uint16", "int16"):
        yield f"quantised to {point.dtype.name}", "symmetric int8 only: --recipe int8 on the float model"
    elif point is not None and point.any():
        yield "an asymmetric zero point", "symmetric int8 only: --recipe int8 on the float model"
    elif input_at(node, 2) and point is None:
        yield "its zero point is computed in the graph", "quantise with fixed ranges: --recipe int8 on the float model"
    values = constants.dtype(node.input[0])
    if node.op_type == "DequantizeLinear" and point is None and values in ("int32", "uint8"):
        what = "a quantised bias (int32)" if values == "int32" else "weights of the type uint8"
        yield what, "symmetric int8 only: --recipe int8 on the float model"


def _pool(node: Any, constants: Constants, version: tuple[int, int]) -> _Faults:
    del constants, version
    dilations = attribute(node, "dilations", [])
    if any(size != 1 for size in dilations):
        yield "a dilated pooling", "use a pooling without dilations"
    if node.op_type == "MaxPool" and len(node.output) > 1 and node.output[1]:
        yield "the indices of a MaxPool", "take the values only"


def _constant_input(index: int, what: str) -> Any:
    def rule(node: Any, constants: Constants, version: tuple[int, int]) -> _Faults:
        del version
        name = input_at(node, index)
        if name and constants.get(name) is None:
            yield f"its {what} is computed in the graph", f"make its {what} a constant before exporting"

    return rule


def _recurrent(node: Any, constants: Constants, version: tuple[int, int]) -> _Faults:
    del constants, version
    if attribute(node, "layout", 0):
        yield "layout 1 (batch first)", "use layout 0: sequence first"
    if attribute(node, "input_forget", 0):
        yield "coupled input and forget gates", "use a plain LSTM"


def _resize(node: Any, constants: Constants, version: tuple[int, int]) -> _Faults:
    del constants
    if attribute(node, "antialias", 0):
        yield "antialiasing", "resize without antialiasing"
    policy = attribute(node, "keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        yield f"the aspect ratio policy {policy}", "compute the sizes outside, and use `stretch`"
    mode = attribute(node, "coordinate_transformation_mode", "half_pixel")
    if mode in ("tf_crop_and_resize", "half_pixel_symmetric"):
        yield f"the coordinates {mode}", "use half_pixel, asymmetric or align_corners"
    if attribute(node, "mode", "nearest") == "cubic" and version < (8, 6):
        yield "cubic interpolation", "use linear or nearest"


def _scatter_nd(node: Any, constants: Constants, version: tuple[int, int]) -> _Faults:
    del constants, version
    reduction = attribute(node, "reduction", "none")
    if reduction != "none":
        yield f"the reduction {reduction}", "scatter without reduction"


def _topk(node: Any, constants: Constants, version: tuple[int, int]) -> _Faults:
    if version < (8, 6):
        yield from _constant_input(1, "k")(node, constants, version)
    count = constants.get(input_at(node, 1))
    if count is not None and count.max(initial=0) > 3840:  # noqa: PLR2004 - NVIDIA: ITopKLayer, "k must be at most 3840"
        yield "k is above 3840", "take fewer candidates"


def _dropout(node: Any, constants: Constants, version: tuple[int, int]) -> _Faults:
    del version
    training = input_at(node, 2)
    value = constants.get(training) if training else None
    if training and (value is None or value.any()):
        yield "training mode", "export in evaluation mode: model.eval()"


def _constant(node: Any, constants: Constants, version: tuple[int, int]) -> _Faults:
    del constants, version
    if {one.name for one in node.attribute} & {"sparse_value", "value_string", "value_strings"}:
        yield "a sparse or text constant", "use dense numbers"


_RULES: dict[str, Any] = {
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _quantize,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "LpPool": _pool,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "Resize": _resize,
    "ScatterND": _scatter_nd,
    "TopK": _topk,
    "Dropout": _dropout,
    "Constant": _constant,
    "CumSum": _constant_input(1, "axis"),
    "OneHot": _constant_input(1, "depth"),
    **{f"Reduce{name}": _constant_input(1, "axes") for name in _REDUCED},
}


def rejected(verdicts: Sequence[NodeVerdict]) -> list[NodeVerdict]:
    """Those that no device of this version takes."""
    return [one for one in verdicts if one.verdict == REJECTED]
