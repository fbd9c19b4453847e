"""Bias correction of a float TFLite graph: what rounding the weights adds to a channel's mean is taken from its bias (Nagel et
al. 2019, 4.2).
"""

from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING, Any

from packager.compress.quantize.onnx_correction import rounded
from packager.compress.quantize.tflite_ranges import tensor_values
from packager.compress.tflite_channels import Layer, add_constant, layers_with_weights, write_bias
from packager.tflite_model import compact, constant, rename, schema, text, to_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from packager.compress.quantize.tflite_ranges import Samples
    from packager.recipe import Recipe

    Array = np.ndarray[Any, Any]

_MOST_SAMPLES = 32


def mean_shifts(model: Any, recipe: Recipe, feeds: Samples) -> dict[str, Array]:
    """The mean output of each layer with weights, by channel, were its weights what rounding adds to them and its bias
    nothing; by the name of its output.

    A layer is linear: its mean output is that of the mean map that it reads.
    """
    import numpy as np

    layers = layers_with_weights(model)
    if not layers:
        return {}
    tensors = model.subgraphs[0].tensors
    names = [text(tensors[int(layer.op.inputs[0])].name) for layer in layers]
    sums: dict[str, Any] = dict.fromkeys(names, 0.0)
    count = 0
    for value in tensor_values(to_bytes(model), feeds(_MOST_SAMPLES)):
        count += 1
        sums = {name: total + value(name).astype(np.float64) for name, total in sums.items()}
    twins, inputs = _twins(model, layers, recipe)
    feed = {f"in_{place}": (sums[name] / count).astype(np.float32) for place, name in enumerate(inputs)}
    value = next(iter(tensor_values(twins, [feed])))
    found = {}
    for place, layer in enumerate(layers):
        array = value(f"out_{place}")
        name = text(tensors[int(layer.op.outputs[0])].name)
        found[name] = array.reshape(-1, array.shape[-1]).mean(axis=0, dtype=np.float64)
    return found


def _twins(model: Any, layers: Sequence[Layer], recipe: Recipe) -> tuple[bytes, list[str]]:
    """A model of nothing but these layers side by side, with rounding errors for weights and no biases; and what its inputs
    in_0, in_1, .. are in the graph. The outputs are out_0, out_1, .. in the order of the layers.
    """
    import numpy as np

    twin = copy.deepcopy(model)
    twin.subgraphs, twin.metadata, twin.metadataBuffer = twin.subgraphs[:1], [], None
    graph = twin.subgraphs[0]
    taken = {id(layer.op): layer for layer in layers}
    pairs = zip(model.subgraphs[0].operators, graph.operators, strict=True)
    kept = [(taken[id(op)], other) for op, other in pairs if id(op) in taken]
    for place, (layer, op) in enumerate(kept):
        weight = constant(model, model.subgraphs[0].tensors[layer.weights])
        error = rounded(weight, dataclasses.replace(recipe, weight_type="int8"), axis=layer.out_axis) - weight
        zeros = np.zeros(error.shape[layer.out_axis])  # convolutions want a bias
        op.inputs = [
            int(op.inputs[0]),
            add_constant(twin, f"error_{place}", error),
            add_constant(twin, f"zeros_{place}", zeros),
        ]
        op.builtinOptions.fusedActivationFunction = schema().ActivationFunctionType.NONE
        # A tensor of its own: another of the layers may read the first one.
        graph.tensors.append(copy.copy(graph.tensors[int(op.outputs[0])]))
        op.outputs = [len(graph.tensors) - 1]
    graph.operators = [op for _, op in kept]
    graph.inputs = list(dict.fromkeys(int(op.inputs[0]) for op in graph.operators))
    graph.outputs = [int(op.outputs[0]) for op in graph.operators]
    names = [text(graph.tensors[index].name) for index in graph.inputs]
    rename(twin, [f"in_{place}" for place in range(len(names))], [f"out_{place}" for place in range(len(kept))])
    compact(twin)
    return to_bytes(twin), names


def correct_tflite(model: Any, shifts: Mapping[str, Array], recipe: Recipe, kinds: Sequence[str]) -> int:
    """Takes the shifts from the biases of the layers of these kinds, but for those that the recipe leaves in float; of how
    many.
    """
    done = 0
    for layer in layers_with_weights(model):
        name = text(model.subgraphs[0].tensors[int(layer.op.outputs[0])].name)
        if layer.kind not in kinds or name in recipe.exclude or not shifts[name].any():
            continue
        bias = 0.0 if layer.bias < 0 else constant(model, model.subgraphs[0].tensors[layer.bias])
        write_bias(model, layer, bias - shifts[name])
        done += 1
    return done
