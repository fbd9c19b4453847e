"""Weights that a TFLite file stores in halves or without their zeros, as the floats that its operators compute with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError
from packager.tflite_model import compact, need, operator_name, parse_model, schema, text, to_bytes

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_STORED = ("FLOAT16", "FLOAT32")  # integers stand for numbers by a scale: that is a quantised model


def unfold_constants(model: Any) -> int:
    """Computes DEQUANTIZE of float16 and DENSIFY of sparse constants once and for all; the number of operators removed.

    A quantiser takes weights only where they are constants. LiteRT itself computes them; raises ConvertError where it cannot.
    """
    graph = model.subgraphs[0]
    places = _constant_operators(model, graph)
    if not places:
        return 0
    read = {int(index) for place, op in enumerate(graph.operators) if place not in places for index in op.inputs}
    read |= {int(index) for index in graph.outputs}
    outputs = [int(graph.operators[place].outputs[0]) for place in places]
    wanted = [index for index in outputs if index in read]
    for index, values in zip(wanted, _computed(model, places, wanted), strict=True):
        _hold(model, graph.tensors[index], values)
    graph.operators = [op for place, op in enumerate(graph.operators) if place not in places]
    compact(model)
    return len(places)


def _constant_operators(model: Any, graph: Any) -> list[int]:
    """The places of the operators that only unfold constants, in their order."""
    kinds = {getattr(schema().TensorType, name) for name in _STORED}
    made: set[int] = set()
    places = []
    for place, op in enumerate(graph.operators):
        if operator_name(model, op) not in ("DEQUANTIZE", "DENSIFY"):
            continue
        index = int(op.inputs[0])
        tensor = graph.tensors[index]
        if tensor.type in kinds and (index in made or _held(model, tensor)):
            made.add(int(op.outputs[0]))
            places.append(place)
    return places


def _held(model: Any, tensor: Any) -> int:
    """How many bytes the file holds for a tensor; for a sparse one fewer than its shape says."""
    data = model.buffers[tensor.buffer].data
    return 0 if data is None else len(data)


def _computed(model: Any, places: list[int], wanted: list[int]) -> list[Array]:
    """What LiteRT makes of the constants, by a graph of these operators alone."""
    part = parse_model(to_bytes(model))
    graph = part.subgraphs[0]
    graph.operators = [graph.operators[place] for place in places]
    graph.inputs, graph.outputs, part.signatureDefs = [], list(wanted), None
    part.subgraphs = [graph]
    compact(part)
    litert = need("ai_edge_litert.interpreter")
    kind = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        interpreter = litert.Interpreter(model_content=to_bytes(part), experimental_op_resolver_type=kind)
        interpreter.allocate_tensors()
        interpreter.invoke()
    except Exception as error:
        raise ConvertError(
            f"LiteRT does not read the stored weights: {str(error)[:300]}",
            where=", ".join(text(model.subgraphs[0].tensors[index].name) for index in wanted[:3]),
            code="load-failed",
        ) from error
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]


def _hold(model: Any, tensor: Any, values: Array) -> None:
    import numpy as np

    buffer = schema().BufferT()
    buffer.data = np.frombuffer(np.ascontiguousarray(values, np.float32).tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor.buffer, tensor.type, tensor.sparsity = len(model.buffers) - 1, schema().TensorType.FLOAT32, None
