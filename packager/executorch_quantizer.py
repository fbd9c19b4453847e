"""XNNPACK's quantiser with a recipe's settings, and without five faults of its own (executorch 1.5)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from agent.contract.finding import INFO, WARNING, Finding
from packager import torch_models

if TYPE_CHECKING:
    from packager.recipe import Recipe


# The recurrent operators of an exported program: XNNPACK's quantiser knows them as matrix products only.
_RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")


def quantizer(recipe: Recipe, *, dynamic: bool = False, activations: Any = None, floating: Collection[str] = ()) -> Any:
    """XNNPACK's quantiser with the recipe's granularity; `activations` makes their observers, and the nodes named in
    `floating` stay in float beside those of the recipe. Dynamic INT8 is for matrix products alone: convolutions that measure
    their input at run time are slower than in float (benchmarks/RESULTS.md).
    """
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import get_symmetric_quantization_config

    torch = torch_models.need_torch()
    made = _class()()
    config = get_symmetric_quantization_config(is_per_channel=recipe.per_channel, is_dynamic=dynamic)
    if activations is not None:
        # One specification for both: what a layer gives and the next takes is then one observer.
        seen = dataclasses.replace(config.input_activation, observer_or_fake_quant_ctr=activations)
        config = dataclasses.replace(config, input_activation=seen, output_activation=seen)
    aten = torch.ops.aten
    multiply = (aten.conv1d.default, aten.conv2d.default, aten.conv_transpose2d.input)
    if dynamic or recipe.scope == "compute":
        for kind in (aten.linear.default, *(() if dynamic else multiply)):
            made.set_operator_type(kind, config)
    else:
        made.set_global(config)
    if recipe.exclude or floating:
        # `set_module_name` refuses "no quantisation" (executorch 1.5); the filter leaves nodes alone.
        made.set_filter_function(lambda node: node.name not in floating and not within(node, recipe.exclude))
    return made


def unchanged(graph: Any) -> Any:
    """The graph as it is before anything is quantised: batch norms folded, numbers as tensors."""
    from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e

    return prepare_pt2e(graph, _class()())


def unrolled(exported: Any) -> Any:
    """The exported program with LSTM and GRU as matrix products, step by step, as ExecuTorch runs them in float, too."""
    torch = torch_models.need_torch()
    known = [getattr(torch.ops.aten, name).input for name in _RECURRENT]
    if not any(node.target in known for node in exported.graph.nodes):
        return exported
    table = torch.export.default_decompositions()
    return exported.run_decompositions({one: table[one] for one in known if one in table})


@dataclasses.dataclass
class _Tally:
    """Operators of a kind in a program: how many, the multiply-adds of a sample, the weights."""

    count: int = 0
    macs: int = 0
    weights: int = 0


def tell_dynamic(exported: Any, recipe: Recipe, before: int, after: int) -> list[Finding]:
    """What dynamic INT8 takes of an exported program and what it leaves; `before` and `after`: bytes of the float weights
    and of the file written.
    """
    kinds: dict[str, int] = {}
    for node in exported.graph.nodes:
        name = _name(node)
        if name in ("linear", *_RECURRENT) and not within(node, recipe.exclude):
            kinds[name] = kinds.get(name, 0) + 1
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    text = f"INT8 weights in {told}: {before} -> {after} bytes ({after / before:.0%})"
    found = [Finding("dynamic-int8", INFO, text, "")]
    products, convolutions = _tally(unrolled(exported))
    if convolutions.count:
        macs, weights = (
            getattr(convolutions, one) / (getattr(convolutions, one) + getattr(products, one))
            for one in ("macs", "weights")
        )
        text = (
            f"{convolutions.count} convolutions stay in float, {macs:.0%} of the multiply-adds and {weights:.0%} of the"
            " weights: dynamic INT8 makes them slower"
        )
        found.append(Finding("float-convolutions", WARNING, text, "--recipe int8 with --calibration quantises them"))
    return found


def _tally(exported: Any) -> tuple[_Tally, _Tally]:
    """Of linear operators and of convolutions; a weight that is read at every step counts once."""
    products, convolutions = _Tally(), _Tally()
    seen = set()
    for node in exported.graph.nodes:
        name = _name(node)
        row = products if name == "linear" else convolutions if name.startswith("conv") else None
        if row is None or "val" not in node.meta:
            continue
        weight = node.args[1]
        shape = weight.meta["val"].shape
        turned = "transpose" in name
        row.count += 1
        row.macs += math.prod((node.args[0] if turned else node).meta["val"].shape) * math.prod(shape[1:])
        row.weights += 0 if weight in seen else math.prod(shape)
        seen.add(weight)
    return products, convolutions


def _name(node: Any) -> str:
    """The operator without its namespace and overload (aten.linear.default: linear); empty for what is none."""
    return str(node.target).split(".")[1] if node.op == "call_function" and "." in str(node.target) else ""


def _class() -> Any:
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer

    class Quantizer(XNNPACKQuantizer):  # type: ignore[misc] # executorch is not seen by the type checker
        # Patterns of quantisation-aware training, in which batch norms still stand; its own looks for them always, and exports
        # twelve small networks to do so: 5 of the 6 seconds that it takes for MobileNetV2.
        SUPPORTED_PATTERNS: ClassVar = [one for one in XNNPACKQuantizer.SUPPORTED_PATTERNS if not one.is_qat]

        def annotate(self, model: Any) -> Any:
            """A clamp (ReLU6) behind a layer is one operator with it, as a ReLU is. Its own gives the layer's output the range
            from before the clamp, and all of MobileNetV2's layers a fraction of the levels; XNNPACK fuses both alike.

            A join that the filter leaves out stays in float. Its own asks the filter for every operator but this one.
            """
            aten = torch_models.need_torch().ops.aten
            clamps = [node for node in model.graph.nodes if _is_clamp_of_layer(node)]
            joins = [node for node in model.graph.nodes if node.target == aten.cat.default]
            joins = [node for node in joins if self.filter_fn is not None and not self.filter_fn(node)]
            held = {node: node.target for node in (*clamps, *joins)}
            for node in held:
                node.target = _held if node in joins else aten.relu.default
            try:
                return super().annotate(model)
            finally:
                for node, target in held.items():
                    node.target = target

        def transform_for_annotation(self, model: Any) -> Any:
            """Numbers in sums and products become tensors. Its own does so with whole numbers, too, and makes them floats:
            positions counted by `cumsum(...) + 1` (RoBERTa) then are no index any more.
            """
            whole = [node for node in model.graph.nodes if _is_whole(node)]
            held = {node: node.target for node in whole}
            for node in whole:
                node.target = _held
            try:
                return super().transform_for_annotation(model)
            finally:
                for node, target in held.items():
                    node.target = target
                model.recompile()

    return Quantizer


def _is_clamp_of_layer(node: Any) -> bool:
    aten = torch_models.need_torch().ops.aten
    if node.op != "call_function" or node.target not in (aten.hardtanh.default, aten.hardtanh_.default):
        return False
    layers = (aten.conv1d.default, aten.conv2d.default, aten.conv_transpose2d.input, aten.linear.default)
    return node.args[0].target in layers and len(node.args[0].users) == 1


def _held() -> None:
    """Stands in for an operator that must not be seen."""


def _is_whole(node: Any) -> bool:
    value = node.meta.get("val") if node.op == "call_function" else None
    return value is not None and hasattr(value, "is_floating_point") and not value.is_floating_point()


def within(node: Any, modules: Sequence[str]) -> bool:
    """Whether the node was traced in one of these submodules."""
    stack = node.meta.get("nn_module_stack") or {}
    names = [str(path).removeprefix("L['self']").lstrip(".") for path, _ in stack.values()]
    return any(name == module or name.startswith(f"{module}.") for name in names for module in modules)
