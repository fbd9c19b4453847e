"""Keras to TFLite."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.contract.errors import ConvertError
from agent.contract.manifest import Step
from packager import keras_models
from packager.artifact import Artifact, digest_files
from packager.tflite_model import model_inputs, model_outputs, output_names, parse_model, rename, schema, to_bytes


class TfliteFromKeras:
    """By TensorFlow's own converter, in float32; Keras models have their channels last already."""

    source = "keras"
    result = "tflite"
    extra = "tflite"

    def warm(self) -> None:
        """TensorFlow starts, and meanwhile what reads its result."""
        keras_models.warm()
        schema()

    def convert(self, artifact: Artifact, options: Mapping[str, Any], workdir: Path) -> Artifact:
        """Raises ConvertError for free dimensions or what the converter does not take."""
        shapes = {}
        for spec in artifact.inputs:
            shape = list(options.get("shapes", {}).get(spec.name, spec.shape))
            shape = [1, *shape[1:]] if shape and isinstance(shape[0], str) else shape
            if any(isinstance(size, str) for size in shape):
                raise ConvertError(
                    f"the input {spec.name!r} has free dimensions: {shape}",
                    expected="numbers: TFLite's memory is planned for fixed shapes",
                    fix=f"give --shape {spec.name}=1x... with numbers",
                    code="dynamic-shape",
                )
            shapes[spec.name] = shape
        file = workdir / "keras.tflite"
        model_path = Path(artifact.entry)
        task = {"do": "convert", "model": str(model_path.resolve()), "file": str(file.resolve()), "shapes": shapes}
        progress, meanwhile = options.get("progress", lambda _: None), options.get("meanwhile", schema)
        found = keras_models.call(task, model_path, progress, meanwhile)
        model = parse_model(file.read_bytes(), "TensorFlow's result")
        _order(model, len(artifact.inputs))
        rename(model, [spec.name for spec in artifact.inputs], [spec.name for spec in artifact.outputs])
        path = workdir / "converted.tflite"
        path.write_bytes(to_bytes(model))
        digest = digest_files([path])
        layouts = [spec.layout for spec in artifact.inputs]
        specs = zip(model_inputs(model), layouts, strict=True)
        return Artifact(
            format="tflite",
            path=path,
            digest=digest,
            inputs=tuple(dataclasses.replace(spec, layout=layout) for spec, layout in specs),
            outputs=model_outputs(model),
            steps=(*artifact.steps, Step("tflite_from_keras", f"tensorflow {found['tensorflow']}", {}, digest)),
            findings=artifact.findings,
        )


def _order(model: Any, inputs: int) -> None:
    """Inputs and outputs in the order of the source: the worker numbered them."""
    from packager.tflite_model import text

    graph = model.subgraphs[0]
    if inputs > 1:
        names = [text(graph.tensors[index].name) for index in graph.inputs]
        wanted = [
            next(i for i, name in enumerate(names) if name.rstrip(":0").endswith(f"input_{n}")) for n in range(inputs)
        ]
        graph.inputs = [int(graph.inputs[place]) for place in wanted]
    outs = output_names(model)
    if len(outs) > 1 and all(name.startswith("output_") for name in outs):
        places = sorted(range(len(outs)), key=lambda place: int(outs[place].rpartition("_")[2]))
        graph.outputs = [int(graph.outputs[place]) for place in places]
