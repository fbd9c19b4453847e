"""The layers of an nn.Module that multiply: their multiply-adds for one sample, and their weights."""

from __future__ import annotations

import math
from typing import Any

from packager import torch_models
from packager.compress.onnx_layers import Layer


def module_layers(module: Any, examples: tuple[Any, ...]) -> list[Layer]:
    """The convolutions and linear layers that a run on `examples` passes, in its order; named as submodules."""
    torch = torch_models.need_torch()
    kinds = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.ConvTranspose2d, torch.nn.Linear)
    found: dict[str, Layer] = {}
    hooks = []

    def watch(name: str, layer: Any) -> Any:
        def seen(_: Any, given: Any, result: Any) -> None:
            each = math.prod(layer.weight.shape[1:])
            turned = type(layer).__name__.startswith("ConvTranspose")
            macs = (given[0] if turned else result).numel() * each // max(1, len(result))
            before = found.get(name)
            total = macs + (before.macs if before else 0)  # a layer may be passed more than once
            found[name] = Layer(name, type(layer).__name__, total, layer.weight.numel())

        return seen

    try:
        for name, layer in module.named_modules():
            if isinstance(layer, kinds):
                hooks.append(layer.register_forward_hook(watch(name, layer)))
        with torch.no_grad():
            module(*[one.clone() for one in examples])
    finally:
        for hook in hooks:
            hook.remove()
    return list(found.values())
