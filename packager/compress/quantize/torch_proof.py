"""Proof that INT8 kernels compute what their integers say: each operator by itself, on the very inputs that the same integers
give in float. So rounding does not build up over the depth of a network, and what is wrong has a name.

A kernel that is right is off by rounding only: a fraction of one step of its output's scale on average. One that is wrong
(qnnpack's clamp on channels_last tensors) is off by many steps. What INT8 costs a network as a whole is another question,
and has another answer: the check against the golden inputs, and its finding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from agent.contract.errors import ConvertError
from packager import torch_models
from packager.torch_compare import flatten, worst_cosine

# Mean distance, in steps of the output's scale, between a kernel and the same integers in float. Seen with right kernels: at
# most 0.03 (both engines; six networks of benchmarks/pytorch_mobile.py, the tests'); with qnnpack's wrong clamp 7 and 19;
# where 8-bit activations saturate x86 kernels without VNNI 0.7 to 1.8.
STEPS = 0.5
# Of what is left in float behind the last INT8 operator.
SAME = 0.99
_PICTURE = 4  # dimensions: the ones that have a channels_last layout


@dataclasses.dataclass(frozen=True)
class Proof:
    """How many INT8 operators were compared, the greatest mean distance in steps, and the operator's name."""

    operators: int
    steps: float
    where: str


def prove_graph(module: Any, reference: Any, feeds: Sequence[Sequence[Any]], engine: str) -> Proof:
    """Of a torch.fx graph of INT8 kernels beside its reference in float. Raises ConvertError (wrong-kernel)."""
    torch = torch_models.need_torch()
    steps: dict[str, float] = {}
    for feed in feeds:
        wanted = _quantised_values(reference, feed)
        forced = _forced(module, wanted, steps)
        with torch.no_grad():
            got, want = forced.run(*[one.clone() for one in feed]), reference(*[one.clone() for one in feed])
        worst = worst_cosine([flatten(want)], [flatten(got)])
        if worst < SAME:
            steps = {**steps, "the output": float("inf")}
    return _judge(steps, engine)


def prove_layers(module: Any, feeds: Sequence[Sequence[Any]], engine: str) -> Proof:
    """Of INT8 convolutions and linear layers, each between its own quantise and dequantise. Raises ConvertError."""
    torch = torch_models.need_torch()
    steps: dict[str, float] = {}
    hooks = []
    for name, layer in module.named_modules():
        if type(layer).__module__.startswith("torch.ao.nn.quantized") and type(layer).__name__ in _FLOATS:
            hooks.append(layer.register_forward_hook(_compare(name, steps)))
    try:
        with torch.no_grad():
            for feed in feeds:
                module(*[one.clone() for one in feed])
    finally:
        for hook in hooks:
            hook.remove()
    return _judge(steps, engine)


def distance(found: Any, wanted: Any) -> float:
    """The mean distance of two tensors of one scale, in its steps; infinite where shape or scale differ."""
    if found.shape != wanted.shape or found.q_scale() != wanted.q_scale():
        return float("inf")
    return float((found.int_repr().int() - wanted.int_repr().int()).abs().float().mean()) if found.numel() else 0.0


def _judge(steps: dict[str, float], engine: str) -> Proof:
    where = max(steps, key=lambda name: steps[name], default="")
    proof = Proof(len(steps), steps.get(where, 0.0), where)
    if proof.steps > STEPS:
        raise ConvertError(
            f"the INT8 kernels of {engine} compute something else than the same integers in float: "
            f"{proof.where} is off by {proof.steps:.1f} steps on average",
            where=proof.where,
            expected=f"at most {STEPS:g} step, which is rounding",
            fix="take --runtime executorch, or --recipe int8-dynamic; and report this model",
            code="wrong-kernel",
        )
    return proof


_FLOATS = {"Conv1d": "conv1d", "Conv2d": "conv2d", "Linear": "linear"}


def _compare(name: str, steps: dict[str, float]) -> Any:
    def hook(layer: Any, inputs: tuple[Any, ...], found: Any) -> None:
        wanted = _in_float(layer, inputs[0].dequantize(), found)
        steps[name] = max(steps.get(name, 0.0), distance(found, wanted))

    return hook


def _in_float(layer: Any, x: Any, like: Any) -> Any:
    """What the layer's integers give in float, at the scale and zero point of `like`."""
    torch = torch_models.need_torch()
    run = getattr(torch.nn.functional, _FLOATS[type(layer).__name__])
    weight, bias = layer.weight().dequantize(), layer.bias()
    if type(layer).__name__ == "Linear":
        value = run(x, weight, bias)
    else:
        padding = layer.padding
        if layer.padding_mode != "zeros":
            both = [size for one in reversed(padding) for size in (one, one)]
            x, padding = torch.nn.functional.pad(x, both, mode=layer.padding_mode), 0
        value = run(x, weight, bias, layer.stride, padding, layer.dilation, layer.groups)
    return torch.quantize_per_tensor(value, like.q_scale(), like.q_zero_point(), like.dtype)


def _quantised_values(reference: Any, feed: Sequence[Any]) -> dict[str, Any]:
    """The reference's quantised tensors by the name of the operator they come from."""
    torch = torch_models.need_torch()
    kept: dict[str, Any] = {}

    base: Any = torch.fx.Interpreter

    class Watched(base):  # type: ignore[misc] # the base is known at run time only
        def run_node(self, node: Any) -> Any:
            found = super().run_node(node)
            if isinstance(found, torch.Tensor) and found.is_quantized:
                kept[node.name] = found
            return found

    with torch.no_grad():
        Watched(reference).run(*[one.clone() for one in feed])
    for node in reference.graph.nodes:
        result = _quantise_after(node)
        if node.name not in kept and result is not None and result.name in kept:
            kept[node.name] = kept[result.name]
    return kept


def _quantise_after(node: Any, depth: int = 2) -> Any:
    """The quantise that follows this node, at most one other operator (a ReLU, which kernels take in) between."""
    torch = torch_models.need_torch()
    users = list(node.users)
    for user in users:
        if user.target is torch.quantize_per_tensor:
            return user
    return _quantise_after(users[0], depth - 1) if len(users) == 1 and depth > 1 else None


def _forced(module: Any, wanted: dict[str, Any], steps: dict[str, float]) -> Any:
    """An interpreter of the kernels' graph in which each INT8 operator gets what the reference computed before it, in the
    memory layout the kernels themselves gave.
    """
    torch = torch_models.need_torch()

    base: Any = torch.fx.Interpreter

    class Forced(base):  # type: ignore[misc] # as above
        def run_node(self, node: Any) -> Any:
            found = super().run_node(node)
            want = wanted.get(node.name)
            if want is None or not (isinstance(found, torch.Tensor) and found.is_quantized):
                return found
            if want.qscheme() != found.qscheme() or found.q_scale() != want.q_scale():
                return found  # another operator's scale: the reference has it under another name
            steps[node.name] = max(steps.get(node.name, 0.0), distance(found, want))
            turned = found.dim() == _PICTURE and not found.is_contiguous()
            return want.contiguous(memory_format=torch.channels_last) if turned else want.contiguous()

    return Forced(module)
