"""Explicit zero pads before convolutions (TensorFlow's "same", written out with `F.pad`) become the convolutions' own padding,
which is the same sum of the same products.

No INT8 engine pads: each pad otherwise costs a dequantise, a float pad and a quantise. And FBGEMM, the x86 engine, has a
fast depthwise kernel for 3x3 padded by 1 and for 5x5 padded by 2 only: a 3x3 without own padding takes 10 to 30 times as
long (48 channels of 33x33, stride 2: 3.6 ms; padded 0.11 ms, as a padded 5x5 0.15 ms).
"""

from __future__ import annotations

from typing import Any

from packager import torch_models

_LAYERS = ("Conv1d", "Conv2d")
_PADS = ("ZeroPad1d", "ZeroPad2d", "ConstantPad1d", "ConstantPad2d")


def fold_pads(graph: Any, examples: tuple[Any, ...] = (), *, engine: str = "") -> int:
    """Folds zero pads into the convolutions that read them, in place; how many pads are gone.

    An uneven pad stays, but for the x86 engine before a depthwise 3x3: that one becomes a 5x5 with zeros at its rim. This
    needs `examples`, the graph's inputs: whether both give outputs of the same size depends on the size of the input.
    """
    modules = dict(graph.named_modules())
    pads = [(node, sides) for node in graph.graph.nodes if (sides := _sides(node, modules))]
    if not pads:
        return 0
    sizes = _sizes(graph, examples) if engine == "x86" and examples else {}
    gone = 0
    for node, sides in pads:
        source = node.args[0]
        if not any(map(any, sides)):
            node.replace_all_uses_with(source)
        for user in list(node.users):
            layer = _convolution(user, node, modules)
            if layer is not None and _take(layer, sides, sizes.get(source)):
                user.replace_input_with(node, source)
        if not node.users:
            graph.graph.erase_node(node)
            gone += 1
    graph.recompile()
    return gone


def _sides(node: Any, modules: dict[str, Any]) -> list[tuple[int, int]]:
    """What a constant pad by zeros adds before and after, last dimension first; empty for any other node."""
    functional = torch_models.need_torch().nn.functional
    if node.op == "call_module":
        layer = modules.get(str(node.target))
        known = type(layer).__name__ in _PADS
        pad, mode, value = (layer.padding, "constant", layer.value) if layer is not None and known else ((), "", 0)
    elif node.op == "call_function" and node.target is functional.pad:
        given = dict(zip(("pad", "mode", "value"), node.args[1:], strict=False)) | dict(node.kwargs)
        pad, mode, value = given.get("pad", ()), given.get("mode", "constant"), given.get("value")
    else:
        return []
    numbers = list(pad) if isinstance(pad, (tuple, list)) else []
    if mode != "constant" or value not in (None, 0) or not all(isinstance(one, int) and one >= 0 for one in numbers):
        return []
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _convolution(user: Any, pad: Any, modules: dict[str, Any]) -> Any:
    """The layer behind a pad, if it pads with zeros itself and is used nowhere else."""
    layer = modules.get(str(user.target)) if user.op == "call_module" and user.args[:1] == (pad,) else None
    if layer is None or type(layer).__name__ not in _LAYERS:
        return None
    shared = [other.target for other in user.graph.nodes if other.op == "call_module"].count(user.target) > 1
    return None if shared or isinstance(layer.padding, str) or layer.padding_mode != "zeros" else layer


def _take(layer: Any, sides: list[tuple[int, int]], size: Any) -> bool:
    """Gives the convolution the pad; False where it cannot have it. `size`: of the tensor before the pad, if known."""
    dims = len(layer.kernel_size)
    if any(map(any, sides[dims:])):
        return False
    spatial = [*sides[:dims], *[(0, 0)] * (dims - len(sides))][::-1]
    whole = [(before + own, after + own) for (before, after), own in zip(spatial, layer.padding, strict=True)]
    if all(before == after for before, after in whole):
        layer.padding = tuple(before for before, _ in whole)
        return True
    return size is not None and _stretch(layer, whole, size[-dims:])


def _stretch(layer: Any, sides: list[tuple[int, int]], size: Any) -> bool:
    """A depthwise 3x3 with an uneven pad as a 5x5 padded by 2: the same if the last window starts at the same place."""
    torch = torch_models.need_torch()
    depthwise = layer.groups == layer.in_channels == layer.out_channels
    if not depthwise or tuple(layer.kernel_size) != (3, 3) or tuple(layer.dilation) != (1, 1):
        return False
    for (before, after), pixels, stride in zip(sides, size, layer.stride, strict=True):
        if before > 2 or (pixels + before + after - 3) // stride != (pixels - 1) // stride:  # noqa: PLR2004 - 5x5's own pad
            return False
    top, left = (2 - before for before, _ in sides)
    wide = torch.zeros(*layer.weight.shape[:2], 5, 5, dtype=layer.weight.dtype)
    wide[:, :, top : top + 3, left : left + 3] = layer.weight.detach()
    layer.weight = torch.nn.Parameter(wide, requires_grad=layer.weight.requires_grad)
    layer.kernel_size, layer.padding = (5, 5), (2, 2)
    return True


def _sizes(graph: Any, examples: tuple[Any, ...]) -> dict[Any, Any]:
    """The shape of each node's tensor."""
    torch = torch_models.need_torch()
    from torch.fx.passes.shape_prop import ShapeProp

    with torch.no_grad():
        ShapeProp(graph).propagate(*examples)
    told = {node: node.meta.get("tensor_meta") for node in graph.graph.nodes}
    return {node: meta.shape for node, meta in told.items() if hasattr(meta, "shape")}
