"""Static INT8 for PyTorch modules, in the kernels that TorchScript carries: qnnpack for ARM, x86 for desktops."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError
from agent.contract.finding import INFO, Finding
from packager import torch_models
from packager.compress.quantize.torch_clamps import absorb_clamps, guard_clamps
from packager.compress.quantize.torch_dynamic import use_engine
from packager.compress.quantize.torch_observers import qconfig
from packager.torch_compare import outputs_of, worst_cosine
from packager.torch_trace import legacy_quiet

if TYPE_CHECKING:
    from packager.recipe import Recipe

# The same integers computed by the kernels and in float: they differ by rounding between layers only. A wrong kernel
# (the ReLU6 of qnnpack) comes out at 0.5 to 0.9.
_PROVEN = 0.99
_PROOF_SAMPLES = 4
# INT8 layer by layer beside the float original: what INT8 itself costs is told by the check against the golden inputs; a wrong
# kernel, as of a whole graph, comes out below this.
_NEAR = 0.8
_ISLANDS = ("Conv1d", "Conv2d", "Linear")


@dataclasses.dataclass(frozen=True)
class StaticResult:
    """The quantised module; `how` is graph (every operator that has an INT8 kernel) or layers (layers alone)."""

    module: Any
    how: str
    findings: tuple[Finding, ...]


def quantize_static(
    module: Any, examples: tuple[Any, ...], feeds: Sequence[Sequence[Any]], recipe: Recipe, engine: str
) -> StaticResult:
    """A quantised copy of the module, ranges from `feeds`. Raises ConvertError, also when the engine's kernels do not
    compute what the same integers give in float.
    """
    use_engine(engine)
    with legacy_quiet():
        graph, reason = _graph_of(module)
        if graph is None:
            return _by_layers(module, feeds, recipe, engine, reason)
        try:
            return _by_graph(graph, examples, feeds, recipe, engine)
        except ConvertError as wrong:
            if wrong.code != "wrong-kernel":
                raise
            return _instead(module, feeds, recipe, engine, wrong)


def _graph_of(module: Any) -> tuple[Any, str]:
    torch = torch_models.need_torch()
    kinds = [getattr(torch.nn, kind) for kind in _ISLANDS]
    try:
        graph = torch.fx.symbolic_trace(copy.deepcopy(module).eval())
        for node in graph.graph.nodes:
            leaf = graph.get_submodule(node.target) if node.op == "call_module" else None
            if leaf is not None and any(type(inner) in kinds for inner in leaf.modules() if inner is not leaf):
                # A block of PyTorch's own (nn.TransformerEncoder) stays whole in the graph, its layers unseen.
                return None, f"{type(leaf).__name__} hides its layers"
    except Exception as error:  # noqa: BLE001 - symbolic tracing runs the user's code: anything may come out of it
        return None, (str(error).splitlines() or [repr(error)])[0][:200]
    return graph, ""


def _instead(
    module: Any, feeds: Sequence[Sequence[Any]], recipe: Recipe, engine: str, wrong: ConvertError
) -> StaticResult:
    """Layer by layer where the whole graph does not hold: each layer takes floats anew, so nothing builds up between them.

    Raises `wrong` when that is far from the original too.
    """
    found = _by_layers(module, feeds, recipe, engine, wrong.what)
    few = feeds[:_PROOF_SAMPLES]
    worst = worst_cosine([outputs_of(module, feed) for feed in few], [outputs_of(found.module, feed) for feed in few])
    if worst < _NEAR:
        wrong.what += f"; and layer by layer the cosine with the original is {worst:.4f}"
        raise wrong
    return found


def _by_graph(
    graph: Any, examples: tuple[Any, ...], feeds: Sequence[Sequence[Any]], recipe: Recipe, engine: str
) -> StaticResult:
    torch = torch_models.need_torch()
    from torch.ao.quantization import quantize_fx

    caps = absorb_clamps(graph) if engine == "qnnpack" else {}
    try:
        prepared = quantize_fx.prepare_fx(graph, _mapping(recipe, engine, caps), examples)
        with torch.no_grad():
            for feed in feeds:
                prepared(*feed)
    except (RuntimeError, AssertionError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConvertError(f"PyTorch's quantiser failed: {str(error)[:600]}", code="quantiser-failed") from error
    return convert_prepared(prepared, feeds, engine)


def convert_prepared(prepared: Any, feeds: Sequence[Sequence[Any]], engine: str) -> StaticResult:
    """A graph with observers or fake quantisation that have seen data, as a module of INT8 kernels, proven on `feeds`."""
    from torch.ao.quantization import quantize_fx

    try:
        reference = quantize_fx.convert_to_reference_fx(copy.deepcopy(prepared))
        module = quantize_fx.convert_fx(copy.deepcopy(prepared))
    except (RuntimeError, AssertionError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConvertError(f"PyTorch's quantiser failed: {str(error)[:600]}", code="quantiser-failed") from error
    _check_quantised(module)
    guarded = guard_clamps(module) if engine == "qnnpack" else 0
    prove_kernels(module, reference, feeds[:_PROOF_SAMPLES], engine)
    findings = []
    if guarded or any(type(one).__name__ == "CappedObserver" for one in prepared.modules()):
        text = (
            f"qnnpack's INT8 clamp is wrong on channels_last tensors: clamps after a layer became part of it, {guarded}"
            " others got a contiguous input; checked against the same integers computed in float"
        )
        findings.append(Finding("qnnpack-clamp", INFO, text, ""))
    return StaticResult(module, "graph", tuple(findings))


def prove_kernels(module: Any, reference: Any, feeds: Sequence[Sequence[Any]], engine: str) -> float:
    """The cosine between INT8 kernels and the same integers in float. Raises ConvertError when they are not the same."""
    expected = [outputs_of(reference, feed) for feed in feeds]
    worst = worst_cosine(expected, [outputs_of(module, feed) for feed in feeds])
    if worst < _PROVEN:
        raise ConvertError(
            f"the INT8 kernels of {engine} compute something else than the same integers in float: cosine {worst:.4f}",
            expected=f"at least {_PROVEN}",
            fix="take --runtime executorch, or --recipe int8-dynamic; and report this model",
            code="wrong-kernel",
        )
    return worst


def _mapping(recipe: Recipe, engine: str, caps: dict[str, float]) -> Any:
    torch = torch_models.need_torch()
    from torch.ao.quantization import get_default_qconfig_mapping

    # The default mapping knows the operators with a fixed output range (sigmoid, softmax, tanh).
    mapping = get_default_qconfig_mapping(engine)
    plain = qconfig(recipe, engine)
    mapping.set_global(plain)
    for kind in ("Conv1d", "Conv2d", "Conv3d", "Linear", "BatchNorm2d", "ReLU"):
        mapping.set_object_type(getattr(torch.nn, kind), plain)
    for kind in ("ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"):
        # Their kernels take one scale per tensor.
        mapping.set_object_type(getattr(torch.nn, kind), qconfig(recipe, engine, per_channel=False))
    functional = torch.nn.functional
    for kind in (functional.conv1d, functional.conv2d, functional.linear, functional.relu, torch.relu):
        mapping.set_object_type(kind, plain)
    if recipe.scope != "all":
        for kind in (torch.nn.LayerNorm, torch.nn.GroupNorm, torch.nn.Softmax, torch.nn.GELU, functional.layer_norm):
            mapping.set_object_type(kind, None)
        for kind in (functional.softmax, torch.softmax, functional.gelu, "softmax"):
            mapping.set_object_type(kind, None)
    for name, cap in caps.items():
        mapping.set_module_name(name, qconfig(recipe, engine, cap=cap))
    for name in recipe.exclude:
        mapping.set_module_name(name, None)
    return mapping


def _check_quantised(module: Any) -> None:
    kinds = [type(layer).__module__ for layer in module.modules()]
    targets = [str(node.target) for node in module.graph.nodes] if hasattr(module, "graph") else []
    if not any("quantized" in name for name in kinds) and not any("quantized." in name for name in targets):
        raise ConvertError(
            "INT8 was asked for, but no layer was quantised", fix="use --recipe fp32", code="nothing-to-quantise"
        )


def _by_layers(module: Any, feeds: Sequence[Sequence[Any]], recipe: Recipe, engine: str, reason: str) -> StaticResult:
    """Each layer by itself between a quantise and a dequantise: for modules that have no symbolic graph."""
    torch = torch_models.need_torch()
    import torch.ao.quantization as ao

    prepared = copy.deepcopy(module).eval()
    chosen = [
        name
        for name, layer in prepared.named_modules()
        if type(layer) in [getattr(torch.nn, kind) for kind in _ISLANDS] and name not in recipe.exclude and name
    ]
    for name in chosen:
        parent, _, leaf = name.rpartition(".")
        owner = prepared.get_submodule(parent)
        setattr(owner, leaf, island(getattr(owner, leaf), qconfig(recipe, engine)))
    try:
        ao.prepare(prepared, inplace=True)
        with torch.no_grad():
            for feed in feeds:
                prepared(*feed)
        ao.convert(prepared, inplace=True)
    except (RuntimeError, AssertionError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConvertError(
            f"PyTorch's quantiser failed: {str(error)[:600]}", fix="--recipe int8-dynamic", code="quantiser-failed"
        ) from error
    _check_quantised(prepared)
    text = f"only the {len(chosen)} linear and convolutional layers are INT8, each by itself, not the whole graph"
    return StaticResult(prepared, "layers", (Finding("layers-only", INFO, f"{text}: {reason}", ""),))


def island(layer: Any, config: Any) -> Any:
    """The layer between a quantise and a dequantise; its settings, `weight` and `bias` can still be looked at."""
    torch = torch_models.need_torch()
    import torch.ao.quantization as ao

    base: Any = torch.nn.Module

    class Island(base):  # type: ignore[misc] # the base is known at run time only
        def __init__(self) -> None:
            super().__init__()
            self.quant = ao.QuantStub()
            self.layer = layer
            self.dequant = ao.DeQuantStub()
            self.qconfig = config
            self.kept = [layer.weight.detach(), layer.bias]
            for name in layer.__constants__:  # stride, padding, in_features, ...
                setattr(self, name, getattr(layer, name))

        @property
        def weight(self) -> Any:
            return self.kept[0]

        @property
        def bias(self) -> Any:
            return self.kept[1]

        def forward(self, x: Any) -> Any:
            return self.dequant(self.layer(self.quant(x)))

    made = Island()
    ao.propagate_qconfig_(made)
    return made
