"""Keras to ONNX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.contract.errors import ConvertError
from agent.contract.manifest import Step
from packager.artifact import Artifact, digest_files
from packager.keras_models import to_onnx
from packager.onnx_model import clean, load_model, model_inputs, model_outputs, opset, save_model

_OPSETS = (13, 18)  # 13: DequantizeLinear has an axis from there on; 18: the newest that tf2onnx 1.17 writes


class OnnxFromKeras:
    """By tf2onnx in an environment of its own; channels stay last, free dimensions stay free."""

    source = "keras"
    result = "onnx"
    extra = ""

    def convert(self, artifact: Artifact, options: Mapping[str, Any], workdir: Path) -> Artifact:
        """Raises ConvertError for what tf2onnx does not convert."""
        path, model_path = workdir / "exported.onnx", Path(artifact.entry)
        raw = workdir / "tf2onnx.onnx"
        given = options.get("shapes", {})
        shapes = {spec.name: _free(given.get(spec.name, spec.shape)) for spec in artifact.inputs}
        least, most = _OPSETS
        task = {
            "model": str(model_path.resolve()),
            "file": str(raw.resolve()),
            "opset": max(least, min(int(options.get("max_opset", most)), most)),
            "shapes": shapes,
        }
        found = to_onnx(task, model_path, options.get("progress", lambda _: None))
        model = load_model(raw)
        # tf2onnx may put the inputs in another order than they were numbered in; it keeps the numbers.
        for side, kind, specs in (
            (model.graph.input, "input", artifact.inputs),
            (model.graph.output, "output", artifact.outputs),
        ):
            _order_and_name(model, side, kind, [spec.name for spec in specs])
        companions = save_model(clean(model), path)
        digest = digest_files([path, *companions])
        tool = f"tf2onnx {found['tf2onnx']}"
        step = Step("onnx_from_keras", tool, {"tensorflow": found["tensorflow"]}, digest)
        return Artifact(
            format="onnx",
            path=path,
            digest=digest,
            inputs=model_inputs(model),
            outputs=model_outputs(model),
            steps=(*artifact.steps, step),
            findings=artifact.findings,
            companions=companions,
            opset=opset(model),
        )


def _free(shape: Sequence[int | str]) -> list[int | None]:
    return [size if isinstance(size, int) else None for size in shape]


def _order_and_name(model: Any, side: Any, kind: str, names: Sequence[str]) -> None:
    """The source's names in the source's order, wherever the graph uses them. Raises ConvertError."""
    by_number = {value.name.partition(":")[0]: value for value in side}
    wanted = [f"{kind}_{place}" for place in range(len(names))]
    if sorted(by_number) != sorted(wanted):
        raise ConvertError(
            f"tf2onnx made other {kind}s than the model has: {', '.join(value.name for value in side)}",
            expected=f"{len(names)}: {', '.join(names)}",
            fix="build with --runtime tflite",
            code="tf2onnx",
        )
    values = []
    # Over names that nobody has: the source may call its second input "input_0".
    for number in wanted:
        value = type(by_number[number])()
        value.CopyFrom(by_number[number])
        _rename(model.graph, value.name, f"edgepack:{number}")
        values.append(value)
    for value, number, name in zip(values, wanted, names, strict=True):
        _rename(model.graph, f"edgepack:{number}", name)
        value.name = name
    del side[:]
    side.extend(values)


def _rename(graph: Any, old: str, new: str) -> None:
    """Every use of a tensor's name, in subgraphs too; a tensor that has the new name already makes way."""
    taken = {name for node in graph.node for name in (*node.input, *node.output)} | {
        one.name for one in graph.initializer
    }
    if new in taken:
        _rename(graph, new, f"{new}__inner")
    for tensor in graph.initializer:
        if tensor.name == old:
            tensor.name = new
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == old:
                    names[place] = new
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                _rename(inner, old, new)
