"""Cross-layer equalisation and bias correction of an exported graph (Nagel et al. 2019, arXiv:1906.04721)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from packager import torch_models
from packager.compress.equalize import SWEEPS, scales
from packager.compress.quantize.onnx_correction import rounded

if TYPE_CHECKING:
    from packager.recipe import Recipe

_MOST_SAMPLES = 32
_BIAS = 2  # its place among the arguments
_GROUPS = 6


def equalize(graph: Any) -> int:
    """Scales the channels between two convolutions so that both weights have the same range in each, in place; how many
    pairs. Exact across ReLU. A ReLU6 does not scale: it becomes ReLU, which changes the function, so the result must be
    measured.
    """
    torch = torch_models.need_torch()
    pairs = list(convolution_pairs(graph))

    def scale(before: Any, after: Any, name: str) -> Any:
        del name
        found = scales(before, after)
        return None if found is None else found[0]

    if not rescale_pairs(graph, pairs, scale, sweeps=SWEEPS):
        return 0
    relu = torch.ops.aten.relu.default
    for _, _, between in pairs:
        if between is not None and between.target != relu:
            between.target, between.args, between.kwargs = relu, between.args[:1], {}
    graph.recompile()
    return len(pairs)


def rescale_pairs(
    graph: Any, pairs: Sequence[tuple[Any, Any, Any]], scale: Callable[[Any, Any, str], Any], *, sweeps: int
) -> bool:
    """Divides each first convolution's output channels by what `scale` says of both weights and of what lies between, and
    multiplies the second's input channels with it, in place. False, and nothing done, where layers share weights.
    """
    torch = torch_models.need_torch()
    names = {str(one.target) for first, second, _ in pairs for one in _held(first) + _held(second)}
    shared = [node for node in graph.graph.nodes if node.op == "get_attr" and str(node.target) in names]
    if not pairs or len(shared) > len(names) or any(len(node.users) > 1 for node in shared):
        return False  # a weight that two layers share cannot be scaled for one
    arrays = {name: _attribute(graph, name).detach().numpy().copy() for name in names}
    for _ in range(sweeps):
        for first, second, between in pairs:
            before, after = (arrays[str(one.args[1].target)] for one in (first, second))
            deep = after.shape[1] == 1 and after.shape[0] == before.shape[0]
            if after.shape[0 if deep else 1] != before.shape[0]:
                continue
            factor = scale(before, after, (between or first).name)
            if factor is None:
                continue
            before /= factor.reshape(-1, *[1] * (before.ndim - 1))
            for bias in _held(first)[1:]:
                arrays[str(bias.target)] /= factor
            after *= factor.reshape(*[-1 if place == (0 if deep else 1) else 1 for place in range(after.ndim)])
    for name, array in arrays.items():
        _set(graph, name, torch.from_numpy(array.astype("float32")))
    return True


def convolution_pairs(graph: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Two convolutions that nothing but a ReLU or a clamp from 0 lies between, and that."""
    aten = torch_models.need_torch().ops.aten
    for first in graph.graph.nodes:
        if not _convolves(first) or len(first.users) != 1:
            continue
        (after,) = first.users
        between = after if _scales(after, aten) and len(after.users) == 1 else None
        second = next(iter(after.users)) if between is not None else after
        if _convolves(second) and second.args[0] is (between or first):
            yield first, second, between


def _convolves(node: Any) -> bool:
    """Whether it is a convolution, plain or depthwise, with weights of its own."""
    aten = torch_models.need_torch().ops.aten
    if node.op != "call_function" or node.target not in (aten.conv1d.default, aten.conv2d.default):
        return False
    groups = node.args[_GROUPS] if len(node.args) > _GROUPS else 1
    if any(one.op != "get_attr" for one in _held(node)):
        return False
    shape = _attribute(node.graph.owning_module, str(node.args[1].target)).shape
    return groups == 1 or (groups == shape[0] and shape[1] == 1)


def _held(node: Any) -> list[Any]:
    """A layer's weight and, where it has one, its bias."""
    return [one for one in node.args[1 : _BIAS + 1] if one is not None]


def _scales(node: Any, aten: Any) -> bool:
    """Whether f(s x) = s f(x): ReLU, or a clamp from 0, which is taken for one."""
    if node.target in (aten.relu.default, aten.relu_.default):
        return True
    return node.target in (aten.hardtanh.default, aten.hardtanh_.default) and list(node.args[1:2]) in ([0], [0.0])


def weight_shifts(graph: Any, feeds: Sequence[Sequence[Any]], recipe: Recipe) -> dict[str, Any]:
    """What rounding its weights adds to the mean of each channel of a layer's output; by the name of its node.

    The layer itself is run on calibration samples with the rounding error for its weights, as onnx_correction does it.
    """
    torch = torch_models.need_torch()
    # XNNPACK's weights are signed always.
    signed = dataclasses.replace(recipe, weight_type="int8")
    errors = {}
    for node in _layers(graph):
        weight = _attribute(graph, str(node.args[1].target)).detach().numpy()
        errors[node.name] = torch.from_numpy(rounded(weight, signed, axis=0) - weight)
    sums: dict[str, Any] = dict.fromkeys(errors, 0)

    base: Any = torch.fx.Interpreter

    class Shifting(base):  # type: ignore[misc] # the base is known at run time only
        def run_node(self, n: Any) -> Any:
            if n.name in errors:
                args, _ = self.fetch_args_kwargs_from_env(n)
                out = n.target(args[0], errors[n.name], None, *args[_BIAS + 1 :]).double()
                axis = out.ndim - 1 if "linear" in str(n.target) else 1
                sums[n.name] = sums[n.name] + out.mean([place for place in range(out.ndim) if place != axis])
            return super().run_node(n)

    few = feeds[:_MOST_SAMPLES]
    running = Shifting(graph)
    with torch.no_grad():
        for feed in few:
            running.run(*[one.clone() for one in feed])
    return {name: (total / len(few)).float() for name, total in sums.items()}


def correct_biases(graph: Any, shifts: Mapping[str, Any], skip: Callable[[Any], bool]) -> None:
    """Takes the shifts from the biases of the layers, in place; of nodes that `skip` is true of, not."""
    for place, node in enumerate(_layers(graph)):
        if skip(node):
            continue
        held = _held(node)
        before = _attribute(graph, str(held[1].target)).detach() if len(held) > 1 else 0
        name = f"corrected_bias_{place}"
        graph.register_buffer(name, before - shifts[node.name])
        with graph.graph.inserting_before(node):
            bias = graph.graph.get_attr(name)
        node.args = (*node.args[:_BIAS], bias, *node.args[_BIAS + 1 :])
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _layers(graph: Any) -> Iterator[Any]:
    """Convolutions and linear layers whose weights and biases are the program's own."""
    aten = torch_models.need_torch().ops.aten
    kinds = (aten.conv1d.default, aten.conv2d.default, aten.linear.default)
    for node in list(graph.graph.nodes):
        if node.op == "call_function" and node.target in kinds and all(one.op == "get_attr" for one in _held(node)):
            yield node


def _attribute(graph: Any, name: str) -> Any:
    place, _, leaf = name.rpartition(".")
    return getattr(graph.get_submodule(place), leaf)


def _set(graph: Any, name: str, value: Any) -> None:
    torch = torch_models.need_torch()
    place, _, leaf = name.rpartition(".")
    owner = graph.get_submodule(place)
    kept = getattr(owner, leaf)
    setattr(
        owner, leaf, torch.nn.Parameter(value, requires_grad=False) if isinstance(kept, torch.nn.Parameter) else value
    )
