"""A module with learned ranges as one with explicit Q/DQ operators in int8: the common form that torch.export carries to
ONNX, ExecuTorch and TFLite.
"""

from __future__ import annotations

import copy
import importlib
from typing import Any

from packager import torch_models
from packager.torch_trace import legacy_quiet

_LOW, _HIGH = -128, 127
# Activations are trained as unsigned bytes; the same scale with the zero point moved gives signed ones.
_SHIFT = 128
_MOVES = ("flatten", "reshape", "view", "permute", "transpose", "squeeze", "unsqueeze")


def as_qdq(prepared: Any, *, float_weights: bool = False) -> Any:
    """The prepared and trained module (packager.compress.qat) with batch norm folded and Q/DQ in the place of fake
    quantisation. In eval mode. `float_weights` keeps the integers' real values in front of a quantise and a dequantise:
    LiteRT's converter takes no integer constant.
    """
    torch = torch_models.need_torch()
    from torch.ao.quantization import quantize_fx

    importlib.import_module("torch.ao.quantization.fx._decomposed")  # registers the operators

    with legacy_quiet():
        reference = quantize_fx.convert_to_reference_fx(copy.deepcopy(prepared).eval())
    _replace_layers(reference, float_weights=float_weights)
    operators = torch.ops.quantized_decomposed
    for node in list(reference.graph.nodes):
        if node.op == "call_function" and node.target is torch.quantize_per_tensor:
            scale, zero = (_constant(reference, one) for one in node.args[1:3])
            settings = (float(scale), int(zero) - _SHIFT, _LOW, _HIGH, torch.int8)
            with reference.graph.inserting_after(node):
                quantised = reference.graph.call_function(
                    operators.quantize_per_tensor.default, (node.args[0], *settings)
                )
            node.replace_all_uses_with(quantised)
            quantised.meta["settings"] = settings
            reference.graph.erase_node(node)
        elif node.op == "call_method" and node.target == "dequantize":
            settings = node.args[0].meta["settings"]
            with reference.graph.inserting_after(node):
                back = reference.graph.call_function(operators.dequantize_per_tensor.default, (node.args[0], *settings))
            back.meta["settings"] = settings
            node.replace_all_uses_with(back)
            reference.graph.erase_node(node)
    _ranges_before_moves(reference)
    _one_dequantise_each(reference)
    reference.graph.eliminate_dead_code()
    reference.recompile()
    return reference.eval()


def _ranges_before_moves(module: Any) -> None:
    """A quantise behind an operator that only moves data goes before it: the numbers are the same, and kernels that move
    integers (XNNPACK's reshape) have one scale for input and output.
    """
    quantise = torch_models.need_torch().ops.quantized_decomposed.quantize_per_tensor.default
    for node in list(module.graph.nodes):
        if node.op != "call_function" or node.target is not quantise:
            continue
        move = node.args[0]
        source: Any = move.args[0] if move.args else None
        if not _only_moves(module, move) or len(move.users) > 1 or "settings" not in getattr(source, "meta", {}):
            continue
        settings = node.meta["settings"]
        if settings == source.meta["settings"]:
            continue
        with module.graph.inserting_before(move):
            first = module.graph.call_function(quantise, (source, *settings))
            back = torch_models.need_torch().ops.quantized_decomposed.dequantize_per_tensor.default
            moved = module.graph.call_function(back, (first, *settings))
        move.args = (moved, *move.args[1:])


def _one_dequantise_each(module: Any) -> None:
    """A dequantise of its own for every reader: kernels are matched by the Q/DQ around them, and two that share one (both
    branches of a residual block) cannot always be told apart: ExecuTorch's partitions then depend on each other in a circle.
    """
    back = torch_models.need_torch().ops.quantized_decomposed.dequantize_per_tensor.default
    for node in list(module.graph.nodes):
        if node.op != "call_function" or node.target is not back:
            continue
        for user in list(node.users)[1:]:
            with module.graph.inserting_after(node):
                own = module.graph.call_function(back, node.args)
            own.meta["settings"] = node.meta.get("settings")
            user.replace_input_with(node, own)


def _only_moves(module: Any, node: Any) -> bool:
    torch = torch_models.need_torch()
    if node.op == "call_method":
        return node.target in _MOVES
    if node.op == "call_module":
        return isinstance(module.get_submodule(node.target), (torch.nn.Flatten, torch.nn.Unflatten))
    return node.op == "call_function" and getattr(node.target, "__name__", "") in _MOVES


def _constant(module: Any, node: Any) -> Any:
    return getattr(module, node.target) if hasattr(node, "target") else node


def _replace_layers(module: Any, *, float_weights: bool) -> None:
    """Reference layers (float weights with their ranges) become layers of integer weights behind a DequantizeLinear."""
    for name, layer in list(module.named_modules()):
        if "quantized.reference" not in type(layer).__module__ or not hasattr(layer, "weight_scale"):
            continue
        parent, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(parent), leaf, _integer_layer(layer, float_weights=float_weights))


def _integer_layer(layer: Any, *, float_weights: bool) -> Any:
    torch = torch_models.need_torch()
    functional = torch.nn.functional
    weight, scale = layer.weight.detach(), layer.weight_scale.detach().float()
    per_channel = scale.numel() > 1
    axis = int(layer.weight_axis_int) if per_channel else 0
    shape = [-1 if index == axis else 1 for index in range(weight.dim())] if per_channel else [1] * weight.dim()
    integers = torch.round(weight / scale.reshape(shape)).clamp(_LOW, _HIGH).to(torch.int8)
    zeros = torch.zeros(scale.numel(), dtype=torch.int64)
    held = integers * scale.reshape(shape) if float_weights else integers
    operators = torch.ops.quantized_decomposed

    base: Any = torch.nn.Module

    class Integer(base):  # type: ignore[misc] # the base is known at run time only
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("integers", held)
            self.register_buffer("scale", scale.reshape(-1))
            self.register_buffer("zeros", zeros)
            self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())

        def forward(self, x: Any) -> Any:
            kept = self.integers
            if per_channel:
                settings = (self.scale, self.zeros, axis, _LOW, _HIGH, torch.int8)
                if float_weights:
                    kept = operators.quantize_per_channel(kept, *settings)
                real = operators.dequantize_per_channel(kept, *settings)
            else:
                one = (float(scale), 0, _LOW, _HIGH, torch.int8)
                if float_weights:
                    kept = operators.quantize_per_tensor(kept, *one)
                real = operators.dequantize_per_tensor(kept, *one)
            if not hasattr(layer, "kernel_size"):
                return functional.linear(x, real, self.bias)
            if "Transpose" in type(layer).__name__:
                unfold = getattr(functional, f"conv_transpose{weight.dim() - 2}d")
                more = (layer.output_padding, layer.groups, layer.dilation)
                return unfold(x, real, self.bias, layer.stride, layer.padding, *more)
            convolve = getattr(functional, f"conv{weight.dim() - 2}d")
            return convolve(x, real, self.bias, layer.stride, layer.padding, layer.dilation, layer.groups)

    return Integer().eval()
