"""What every target that eats ONNX does first: shapes fixed, opset and IR within the device's runtime, clean bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.contract.errors import ConvertError
from agent.contract.manifest import Step
from packager.artifact import Artifact, digest_files
from packager.onnx_model import (
    clean,
    fix_shapes,
    free_nameless,
    is_quantized,
    lift_constants,
    load_model,
    model_inputs,
    model_outputs,
    move_opset,
    opset,
    save_model,
)
from packager.shapes import Shape, check_shapes, show

_FREE_CONSTANTS = 4  # the IR version from which initialisers need not be inputs
LEAST_OPSET = 13  # per-channel DequantizeLinear needs its `axis`


def plan_prepare(artifact: Artifact, shapes: Mapping[str, Shape], most_opset: int) -> list[tuple[str, dict[str, Any]]]:
    """The steps that `prepare` will take."""
    steps: list[tuple[str, dict[str, Any]]] = []
    if shapes:
        steps.append(("fix_shapes", {name: show(shape) for name, shape in shapes.items()}))
    wanted = _wanted_opset(artifact.opset or LEAST_OPSET, most_opset)
    if artifact.opset is not None and wanted != artifact.opset:
        steps.append(("move_opset", {"from": artifact.opset, "to": wanted}))
    return steps


def prepare(artifact: Artifact, shapes: Mapping[str, Shape], most_opset: int, most_ir: int, workdir: Path) -> Artifact:
    """The model ready for lowering. Raises ConvertError where the opset cannot be moved or a shape does not work."""
    import onnx

    model = load_model(artifact.path)
    steps: list[tuple[str, dict[str, Any]]] = []
    tool = f"onnx {onnx.__version__}"
    fixed = {name: shape for name, shape in shapes.items() if name in {spec.name for spec in artifact.inputs}}
    if fixed:
        check_shapes(fixed, artifact.inputs)
        model = fix_shapes(model, fixed)
        steps.append(("fix_shapes", {name: show(shape) for name, shape in fixed.items()}))
    wanted = _wanted_opset(opset(model), most_opset)
    if wanted != opset(model):
        steps.append(("move_opset", {"from": opset(model), "to": wanted}))
        model = move_opset(model, wanted)
    model = lift_constants(model)
    free_nameless(model)
    model.ir_version = min(model.ir_version, most_ir)
    _drop_constant_inputs(model)
    _drop_unused_domains(model)
    path = workdir / "prepared-source.onnx"
    companions = save_model(clean(model), path)
    digest = digest_files([path, *companions])
    return dataclasses.replace(
        artifact,
        path=path,
        companions=companions,
        digest=digest,
        inputs=model_inputs(model),
        outputs=model_outputs(model),
        opset=opset(model),
        quantized=is_quantized(model),
        steps=(*artifact.steps, *(Step(name, tool, options, digest) for name, options in steps)),
    )


def _wanted_opset(now: int, most: int) -> int:
    if most < LEAST_OPSET:
        raise ConvertError(
            f"the profile's runtime stops at opset {most}", expected=f"opset {LEAST_OPSET} at least", code="opset"
        )
    return min(max(now, LEAST_OPSET), most)


def _drop_constant_inputs(model: Any) -> None:
    """Constants that old exporters (IR 3) list among the inputs: quantisers and runtimes would ask the caller for them."""
    constants = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.input if value.name not in constants]
    if len(kept) < len(model.graph.input):
        del model.graph.input[:]
        model.graph.input.extend(kept)
        model.ir_version = max(model.ir_version, _FREE_CONSTANTS)


def _drop_unused_domains(model: Any) -> None:
    from packager.onnx_model import all_nodes

    used = {node.domain for node in all_nodes(model.graph)} | {""}
    used |= {node.domain for function in model.functions for node in function.node}
    used |= {function.domain for function in model.functions}
    kept = [entry for entry in model.opset_import if entry.domain in used or entry.domain == "ai.onnx"]
    del model.opset_import[:]
    model.opset_import.extend(kept)
