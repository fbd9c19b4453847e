"""Cross-layer equalisation and bias correction of an exported graph (Nagel et al. 2019, arXiv:1906.04721)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from packager import torch_models
from packager.compress.equalize import SWEEPS, shared_range
from packager.compress.quantize.onnx_correction import rounded
from packager.compress.torch_channels import BIAS, Arrays, attribute, held, scalable, values_of

if TYPE_CHECKING:
    from packager.recipe import Recipe

_MOST_SAMPLES = 32


def equalize(graph: Any, feeds: Sequence[Sequence[Any]]) -> int:
    """Scales channels so that the weights that make them and those that read them have the same range in each, in place; of
    how many tensors, or groups of tensors that are added up. Exact across ReLU. A ReLU6 does not scale: it becomes ReLU, which
    changes the function, so the result must be measured. Shapes are read off a sample of `feeds`.
    """
    import numpy as np

    shapes = {name: tuple(value.shape) for name, value in next(values_of(graph, feeds[:1])).items()}
    groups = scalable(graph, shapes)
    arrays = Arrays(graph, groups)
    for _ in range(SWEEPS):
        for one in groups:
            sides = [(layer, 0) for layer in one.makers], [(layer, layer.in_axis) for layer in one.readers]
            before, after = (
                np.max([abs(arrays.rows(layer, axis)).max(axis=(1, 2)) for layer, axis in side], axis=0)
                for side in sides
            )
            arrays.rescale(one, shared_range(before, after))
    arrays.write()
    relu = torch_models.need_torch().ops.aten.relu.default
    for clip in (clip for one in groups for clip in one.clips):
        clip.target, clip.args, clip.kwargs = relu, clip.args[:1], {}
    graph.recompile()
    return len(groups)


def weight_shifts(graph: Any, feeds: Sequence[Sequence[Any]], recipe: Recipe) -> dict[str, Any]:
    """What rounding its weights adds to the mean of each channel of a layer's output; by the name of its node.

    The layer itself is run on calibration samples with the rounding error for its weights, as onnx_correction does it.
    """
    torch = torch_models.need_torch()
    # XNNPACK's weights are signed always.
    signed = dataclasses.replace(recipe, weight_type="int8")
    errors = {}
    for node in _layers(graph):
        weight = attribute(graph, str(node.args[1].target)).detach().numpy()
        errors[node.name] = torch.from_numpy(rounded(weight, signed, axis=0) - weight)
    sums: dict[str, Any] = dict.fromkeys(errors, 0)

    base: Any = torch.fx.Interpreter

    class Shifting(base):  # type: ignore[misc] # the base is known at run time only
        def run_node(self, n: Any) -> Any:
            if n.name in errors:
                args, _ = self.fetch_args_kwargs_from_env(n)
                out = n.target(args[0], errors[n.name], None, *args[BIAS + 1 :]).double()
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
        own = held(node)
        before = attribute(graph, str(own[1].target)).detach() if len(own) > 1 else 0
        name = f"corrected_bias_{place}"
        graph.register_buffer(name, before - shifts[node.name])
        with graph.graph.inserting_before(node):
            bias = graph.graph.get_attr(name)
        node.args = (*node.args[:BIAS], bias, *node.args[BIAS + 1 :])
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _layers(graph: Any) -> Iterator[Any]:
    """Convolutions and linear layers whose weights and biases are the program's own."""
    aten = torch_models.need_torch().ops.aten
    kinds = (aten.conv1d.default, aten.conv2d.default, aten.linear.default)
    for node in list(graph.graph.nodes):
        if node.op == "call_function" and node.target in kinds and all(one.op == "get_attr" for one in held(node)):
            yield node
