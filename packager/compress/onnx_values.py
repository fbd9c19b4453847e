"""What the tensors inside an ONNX graph hold for given samples, by onnxruntime without its optimisations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from packager.onnx_model import need_onnxruntime

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import numpy as np

    Array = np.ndarray[Any, Any]


def tensor_values(
    model: Any, feeds: Iterable[Mapping[str, Array]], names: Iterable[str] | None = None
) -> Iterator[dict[str, Array]]:
    """For each sample the tensors of these names, inputs among them; of all nodes by default."""
    import onnx

    onnxruntime = need_onnxruntime()
    widened = type(model)()
    widened.CopyFrom(model)
    made = dict.fromkeys(name for node in widened.graph.node for name in node.output if name)
    wanted = set(made if names is None else names)
    known = {value.name for value in widened.graph.output}
    # Of a value without a type onnxruntime takes the type that it infers.
    widened.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made if name in wanted - known)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(widened.SerializeToString(), options, providers=["CPUExecutionProvider"])
    asked = [entry.name for entry in session.get_outputs() if entry.name in wanted]
    for feed in feeds:
        found = dict(zip(asked, session.run(asked, dict(feed)), strict=True)) if asked else {}
        yield {**{name: array for name, array in feed.items() if name in wanted}, **found}
