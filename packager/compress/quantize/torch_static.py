"""Static INT8 for PyTorch modules, in the kernels that TorchScript carries: qnnpack for ARM, x86 for desktops."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError
from agent.contract.finding import INFO, Finding
from packager import torch_models
from packager.compress.quantize.torch_clamps import absorb_clamps, cap_outputs_only, guard_clamps, saturates
from packager.compress.quantize.torch_dynamic import use_engine
from packager.compress.quantize.torch_joins import join_kinds, mixed_joins, tell_joins
from packager.compress.quantize.torch_observers import qconfig
from packager.compress.quantize.torch_pads import fold_pads
from packager.compress.quantize.torch_proof import prove_graph, prove_layers
from packager.torch_compare import outputs_of, worst_cosine
from packager.torch_symbolic import symbolic
from packager.torch_trace import legacy_quiet

if TYPE_CHECKING:
    from packager.recipe import Recipe

_PROOF_SAMPLES = 4
# The cosine with the original under which every runtime's INT8 is told to be far from it (the targets' tolerance): here the
# other way to INT8 is then tried, and the nearer one taken. It is no limit for a refusal: how much INT8 costs is for the user
# to weigh, and is said in a finding and by the golden check, as for every other runtime. What is refused is a kernel that
# does not compute what its integers say (torch_proof).
_NEAR = 0.98
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
    """A quantised copy of the module, ranges from `feeds`. Raises ConvertError, also when an INT8 kernel of the engine does
    not compute what its integers give in float; such a graph is first tried layer by layer.
    """
    use_engine(engine)
    with legacy_quiet():
        graph, reason = _graph_of(module, examples, feeds[:_PROOF_SAMPLES])
        if graph is None:
            return _by_layers(module, feeds, recipe, engine, reason)
        try:
            found = _by_graph(graph, examples, feeds, recipe, engine)
        except ConvertError as wrong:
            if wrong.code != "wrong-kernel":
                raise
            return _by_layers(module, feeds, recipe, engine, wrong.what)
        return _nearer(module, found, feeds, recipe, engine)


def _graph_of(module: Any, examples: tuple[Any, ...], feeds: Sequence[Sequence[Any]]) -> tuple[Any, str]:
    torch = torch_models.need_torch()
    kinds = [getattr(torch.nn, kind) for kind in _ISLANDS]
    try:
        graph = symbolic(module, examples, feeds)
        for node in graph.graph.nodes:
            leaf = graph.get_submodule(node.target) if node.op == "call_module" else None
            if leaf is not None and any(type(inner) in kinds for inner in leaf.modules() if inner is not leaf):
                # A block of PyTorch's own (nn.TransformerEncoder) stays whole in the graph, its layers unseen.
                return None, f"{type(leaf).__name__} hides its layers"
    except Exception as error:  # noqa: BLE001 - symbolic tracing runs the user's code: anything may come out of it
        return None, (str(error).splitlines() or [repr(error)])[0][:200]
    return graph, ""


def _nearer(
    module: Any, whole: StaticResult, feeds: Sequence[Sequence[Any]], recipe: Recipe, engine: str
) -> StaticResult:
    """The whole graph in INT8; where that is far from the original, layer by layer if that is much nearer: each layer takes
    floats anew, and fewer operators are INT8.
    """
    few = feeds[:_PROOF_SAMPLES]
    expected = [outputs_of(module, feed) for feed in few]
    far = worst_cosine(expected, [outputs_of(whole.module, feed) for feed in few])
    if far >= _NEAR:
        return whole
    reason = f"the whole graph in INT8 is at a cosine of {far:.4f} with the original"
    try:
        layers = _by_layers(module, feeds, recipe, engine, reason)
    except ConvertError as error:
        if error.code not in ("nothing-to-quantise", "quantiser-failed", "wrong-kernel"):
            raise
        return whole
    near = worst_cosine(expected, [outputs_of(layers.module, feed) for feed in few])
    # Layers by themselves are slow (each converts its floats there and back): they must be twice as near to be worth it.
    return layers if 1 - near < (1 - far) / 2 else whole


def _by_graph(
    graph: Any, examples: tuple[Any, ...], feeds: Sequence[Sequence[Any]], recipe: Recipe, engine: str
) -> StaticResult:
    torch = torch_models.need_torch()
    from torch.ao.quantization import quantize_fx

    fold_pads(graph, examples, engine=engine)
    # For qnnpack this closes the ReLU6 trap; for every engine it spends all levels on what the clamp lets through.
    caps = absorb_clamps(graph, keep=not saturates(engine))
    mapping = _mapping(recipe, engine, caps)
    mixed = mixed_joins(graph, feeds)
    for kind in join_kinds() if mixed else ():  # a mapping knows kinds, not nodes: the other joins go along
        mapping.set_object_type(kind, None)
    try:
        prepared = quantize_fx.prepare_fx(graph, mapping, examples)
        cap_outputs_only(prepared, caps, qconfig(recipe, engine).activation)
        with torch.no_grad():
            for feed in feeds:
                prepared(*feed)
    except (RuntimeError, AssertionError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConvertError(f"PyTorch's quantiser failed: {str(error)[:600]}", code="quantiser-failed") from error
    made = convert_prepared(prepared, feeds, engine)
    return dataclasses.replace(made, findings=(*made.findings, *tell_joins(mixed)))


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
    prove_graph(module, reference, feeds[:_PROOF_SAMPLES], engine)
    findings = []
    capped = any(type(one).__name__ == "CappedObserver" for one in prepared.modules())
    if engine == "qnnpack" and (guarded or capped):
        text = (
            f"qnnpack's INT8 clamp is wrong on channels_last tensors: clamps after a layer became part of it, {guarded}"
            " others got a contiguous input; checked against the same integers computed in float"
        )
        findings.append(Finding("qnnpack-clamp", INFO, text, ""))
    return StaticResult(module, "graph", tuple(findings))


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
    prove_layers(prepared, feeds[:_PROOF_SAMPLES], engine)
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
