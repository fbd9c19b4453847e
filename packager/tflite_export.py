"""litert-torch, tamed: the names of the house, channels last for images, stdout left alone."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.contract.errors import ConvertError, UsageError
from agent.contract.manifest import Step
from packager.artifact import Artifact, digest_files
from packager.tflite_model import (
    model_inputs,
    model_outputs,
    need,
    operator_counts,
    parse_model,
    quiet,
    rename,
    text,
    to_bytes,
)
from packager.torch_blame import instead_of, layers_of, operator_in

_IMAGE_RANK = 4
_FROM = {"scatter": "col2im"}  # which of PyTorch's operators most often ends as it
LAYOUTS = ("", "nhwc", "nchw", "keep")


def export_tflite(
    module: Any, examples: tuple[Any, ...], artifact: Artifact, options: Mapping[str, Any], workdir: Path
) -> Artifact:
    """The module as TFLite in float32. Raises ConvertError with the converter's reason, UsageError without litert-torch."""
    if options.get("free_dims"):
        free = ", ".join(f"{name} {axes}" for name, axes in options["free_dims"].items())
        raise ConvertError(
            f"free dimensions in a TFLite model: {free}",
            expected="numbers: TFLite's memory is planned for fixed shapes",
            fix="give --shape with numbers only",
            code="dynamic-shape",
        )
    litert_torch = _need_litert_torch()
    last_in, last_out = channels_last(artifact, str(options.get("layout", "")))
    wrapped, arguments = module, examples
    if last_in or last_out:
        wrapped = litert_torch.to_channel_last_io(module, args=last_in, outputs=last_out)
        arguments = tuple(
            value.permute(0, 2, 3, 1).contiguous() if index in last_in else value
            for index, value in enumerate(examples)
        )
    try:
        with quiet():
            made = litert_torch.convert(wrapped, arguments)
            made.export(str(workdir / "litert-torch.tflite"))
    except Exception as error:
        # torch.export, the lowering and the flatbuffer writer raise whatever they meet.
        raise _explain(error, artifact, module, examples) from error
    raw = (workdir / "litert-torch.tflite").read_bytes()
    return _finish(raw, artifact, last_in, last_out, workdir)


def channels_last(artifact: Artifact, layout: str) -> tuple[list[int], list[int]]:
    """The places of the inputs and outputs that become channels-last. Raises UsageError for an unknown layout."""
    if layout not in LAYOUTS:
        raise UsageError(f"unknown layout {layout!r}", expected="nhwc, nchw or keep", code="bad-layout")
    if layout in ("nchw", "keep"):
        return [], []
    inputs = [index for index, spec in enumerate(artifact.inputs) if spec.layout == "nchw"]
    outputs = [
        index
        for index, spec in enumerate(artifact.outputs)
        if inputs and len(spec.shape) == _IMAGE_RANK and spec.dtype.startswith("float")
    ]
    return inputs, outputs


def _finish(raw: bytes, artifact: Artifact, last_in: list[int], last_out: list[int], workdir: Path) -> Artifact:
    import importlib.metadata

    model = parse_model(raw, "litert-torch's result")
    _refuse_unprepared(model, raw)
    rename(model, [spec.name for spec in artifact.inputs], [spec.name for spec in artifact.outputs])
    path = workdir / "converted.tflite"
    path.write_bytes(to_bytes(model))
    inputs = [
        dataclasses.replace(spec, layout="nhwc" if index in last_in else artifact.inputs[index].layout)
        for index, spec in enumerate(model_inputs(model))
    ]
    outputs = [
        dataclasses.replace(spec, layout="nhwc" if index in last_out else "")
        for index, spec in enumerate(model_outputs(model))
    ]
    digest = digest_files([path])
    version = importlib.metadata.version("litert-torch")
    layout = {"channels_last": [artifact.inputs[index].name for index in last_in]} if last_in else {}
    step = Step(f"tflite_from_{artifact.format}", f"litert-torch {version}", layout, digest)
    return Artifact(
        format="tflite",
        path=path,
        digest=digest,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        steps=(*artifact.steps, step),
        findings=artifact.findings,
    )


def _need_litert_torch() -> Any:
    import importlib

    try:
        with quiet():
            return importlib.import_module("litert_torch")
    except ImportError as error:
        raise UsageError(
            f"litert-torch is needed to convert PyTorch models to TFLite: {error}",
            fix="pip install 'edgepack[torch,tflite]'",
            code="no-litert-torch",
        ) from error


def _explain(error: Exception, artifact: Artifact, module: Any, examples: tuple[Any, ...]) -> ConvertError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [
        line
        for line in lines
        if any(word in line for word in ("not implemented", "nsupported", "not support", "aten."))
    ]
    told = " ".join((telling or lines)[:3]).partition(" While executing ")[0][:600] or repr(error)
    operator = operator_in(" ".join(telling))
    if not operator:
        return ConvertError(
            f"litert-torch does not convert the module: {told}",
            where=artifact.entry or artifact.path.name,
            expected="operators that litert-torch lowers to TFLite",
            fix="build for another runtime: --runtime onnxruntime",
            code="unsupported-operator" if telling else "export-failed",
        )
    with quiet():
        layers = layers_of(operator, module, examples)
    named = f", layer {', '.join(layers)}" if layers else ""
    return ConvertError(
        f"litert-torch has no TFLite form of the operator {operator}: {told}",
        where=f"{artifact.entry or artifact.path.name}{named}",
        expected="operators that litert-torch lowers to TFLite",
        fix=f"in the place of {operator}: {instead_of(operator)}; or build with --runtime onnxruntime",
        code="unsupported-operator",
    )


def _refuse_unprepared(model: Any, raw: bytes) -> None:
    """litert-torch also writes StableHLO operators, of which LiteRT runs some forms only. Raises ConvertError."""
    if not any(name.startswith("STABLEHLO") for name in operator_counts(model)):
        return
    interpreter = need("ai_edge_litert.interpreter")
    try:
        interpreter.Interpreter(model_content=raw).allocate_tensors()
    except Exception as error:
        # LiteRT raises ValueError and RuntimeError with the operator's number in the text.
        place = re.search(r"Node number (\d+) \((\w+)\)", str(error))
        if not place:
            raise
        op = model.subgraphs[0].operators[int(place[1])]
        operator = place[2].lower().removeprefix("stablehlo_")
        raise ConvertError(
            f"LiteRT does not run the operator {place[2]} that litert-torch wrote: {str(error)[:300]}",
            where=text(model.subgraphs[0].tensors[op.outputs[0]].name)[-200:],
            expected="operators that LiteRT runs",
            fix=f"in the place of {operator}: {instead_of(_FROM.get(operator, operator))}; "
            "or build with --runtime onnxruntime",
            code="unsupported-operator",
        ) from error
