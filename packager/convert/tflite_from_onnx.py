"""ONNX to TFLite."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError
from agent.contract.finding import INFO, Finding
from agent.contract.manifest import Step
from packager import toolchain
from packager.artifact import Artifact, digest_files
from packager.onnx_factors import fold_factors
from packager.onnx_hard_swish import HARD_SWISH_OPSET, has_hard_swish, join_hard_swish
from packager.onnx_model import all_nodes, fix_shapes, load_model, move_opset, opset, save_model
from packager.onnx_recurrent import unroll
from packager.tensorrt.repair import fold
from packager.tflite_graph import share_constants
from packager.tflite_layouts import CHANNELS_LAST, back, is_turned, orders, orders_by_values, reordered
from packager.tflite_model import model_inputs, model_outputs, operator_counts, parse_model, rename, schema, to_bytes
from packager.worker import run_worker, start_worker

if TYPE_CHECKING:
    from agent.contract.manifest import TensorSpec

_TOOL = "onnx2tf"
_CUSTOM = "ONNX_"
_INSTEAD = {
    "Col2Im": "where window and stride are equal, a reshape and a transpose",
    "Det": "leave it to the program that calls the model",
    "Einsum": "MatMul and Transpose",
    "GridSample": "Resize, or sample outside of the model",
    "Loop": "unroll it before exporting",
    "NonMaxSuppression": "leave it to the program that calls the model",
    "Scan": "unroll it before exporting",
}


class TfliteFromOnnx:
    """By onnx2tf's flatbuffer backend, in an environment of its own; only its float32 file is used."""

    source = "onnx"
    result = "tflite"
    extra = "tflite"

    def warm(self) -> None:
        """onnx2tf starts."""
        python = toolchain.ready(_TOOL)
        if python:
            start_worker(_TOOL, python)

    def convert(self, artifact: Artifact, options: Mapping[str, Any], workdir: Path) -> Artifact:
        """Raises ConvertError for free dimensions, a quantised graph, or what onnx2tf does not convert."""
        if artifact.quantized:
            raise ConvertError(
                "the ONNX model is already quantised: it cannot become TFLite",
                fix="build from the float model, or take --runtime onnxruntime",
                code="already-quantised",
            )
        layout = str(options.get("layout", ""))
        folder = workdir / "onnx2tf"
        folder.mkdir()
        fixed = fix_shapes(load_model(artifact.path), _static(artifact, options.get("shapes", {})))
        # onnx2tf does not see through shapes that are computed in the graph, nor through batch normalisation to fold.
        joined, findings = _joined(fold(fixed, folder / "folded.onnx"))
        save_model(joined, folder / "model.onnx")
        last = [] if layout in ("nchw", "keep") else [spec.name for spec in artifact.inputs if spec.layout == "nchw"]
        keep = [spec.name for spec in artifact.inputs if spec.name not in last and len(spec.shape) > 2]  # noqa: PLR2004
        installed = toolchain.install(_TOOL, options.get("progress", lambda _: None))
        task = {"model": str(folder / "model.onnx"), "folder": str(folder.resolve()), "keep": keep}
        meanwhile = options.get("meanwhile", schema)
        try:
            made = run_worker(_TOOL, task, python=installed.python, what=_TOOL, meanwhile=meanwhile)
        except ConvertError as error:
            raise _explain(error) from error
        model = parse_model(Path(made["file"]).read_bytes(), "onnx2tf's result")
        _refuse_custom(model, load_model(folder / "model.onnx", weights=False))
        artifact = dataclasses.replace(artifact, findings=(*artifact.findings, *findings))
        return _finish(model, artifact, last, workdir, first=layout in ("nchw", "keep"))


def _joined(model: Any) -> tuple[Any, list[Finding]]:
    """HardSwish as one node, also where the model's opset is too old to have it; no constants before convolutions; no LSTM
    that would keep its state.
    """
    findings = []
    model, count = unroll(model)
    if count:
        told = (
            f"{count} LSTM or RNN written step by step: LiteRT's own would go on from the state of the inference before"
        )
        findings.append(Finding("recurrence-unrolled", INFO, told, ""))
    if has_hard_swish(model):
        try:
            model = move_opset(model, max(opset(model), HARD_SWISH_OPSET))
            join_hard_swish(model)
        except ConvertError as error:
            told = f"HardSwish stays three or four operators, which is slower: {error.what}"
            findings.append(Finding("hard-swish", INFO, told, f"export the model at opset {HARD_SWISH_OPSET} or above"))
    fold_factors(model)
    return model, findings


def _refuse_custom(model: Any, graph: Any) -> None:
    """onnx2tf writes what it cannot lower as a custom operator ONNX_..., which no runtime knows. Raises ConvertError."""
    custom = {name.removeprefix(_CUSTOM).lower() for name in operator_counts(model) if name.startswith(_CUSTOM)}
    if not custom:
        return
    nodes = [node for node in all_nodes(graph.graph) if node.op_type.lower() in custom]
    kinds = sorted({node.op_type for node in nodes}) or sorted(custom)
    layers = (node.name.strip("/").rpartition("/")[0] for node in nodes)
    where = [
        f"{node.op_type} node {node.name or node.output[0]!r}" + (f" of the layer {layer!r}" if layer else "")
        for node, layer in zip(nodes, layers, strict=True)
    ]
    raise ConvertError(
        f"TFLite has no operator for ONNX's {', '.join(kinds)}",
        where="; ".join(where[:5]),
        expected="operators that onnx2tf lowers to TFLite",
        fix="; ".join(f"{kind}: {_INSTEAD.get(kind, 'write it with arithmetic operators')}" for kind in kinds)
        + "; or build with --runtime onnxruntime",
        code="unsupported-operator",
    )


def _static(artifact: Artifact, shapes: Mapping[str, Sequence[int | str]]) -> dict[str, tuple[int | str, ...]]:
    """Every input's shape in numbers: --shape first, a free batch 1. Raises ConvertError for other free dimensions."""
    found: dict[str, tuple[int | str, ...]] = {}
    for spec in artifact.inputs:
        shape = list(shapes.get(spec.name, spec.shape))
        if shape and isinstance(shape[0], str):
            shape[0] = 1
        free = [str(size) for size in shape if isinstance(size, str)]
        if free:
            given = "x".join(str(size) if isinstance(size, int) else size.upper() for size in shape)
            raise ConvertError(
                f"the input {spec.name!r} has free dimensions: {', '.join(free)}",
                expected="numbers: TFLite's memory is planned for fixed shapes",
                fix=f"give --shape {spec.name}={given} with numbers",
                code="dynamic-shape",
            )
        found[spec.name] = tuple(shape)
    return found


def _finish(model: Any, artifact: Artifact, last: Sequence[str], workdir: Path, *, first: bool) -> Artifact:
    """`first`: maps among the outputs have their channels first too."""
    share_constants(model)
    graph = model.subgraphs[0]
    _order(model_inputs(model), artifact.inputs, graph, "inputs")
    _order(model_outputs(model), artifact.outputs, graph, "outputs")
    inputs = tuple(
        dataclasses.replace(spec, layout="nhwc" if _taken_last(old, spec, last) else old.layout)
        for spec, old in zip(model_inputs(model), artifact.inputs, strict=True)
    )
    found = _orders(model, artifact, inputs, workdir)
    turned = [place for place, order in found.items() if order == CHANNELS_LAST and not first]
    # A map may have its channels last, which is told; any other output has the axes of the original.
    other = [place for place, order in found.items() if list(order) != sorted(order) and place not in turned]
    if other:
        model = reordered(model, {place: back(found[place]) for place in other})
    rename(model, [spec.name for spec in artifact.inputs], [spec.name for spec in artifact.outputs])
    path = workdir / "converted.tflite"
    path.write_bytes(to_bytes(model))
    digest = digest_files([path])
    options = {"backend": "flatbuffer_direct", "channels_last": list(last)}
    version = toolchain.TOOLS[_TOOL].requirements[0].partition("==")[2]
    return Artifact(
        format="tflite",
        path=path,
        digest=digest,
        inputs=tuple(
            dataclasses.replace(spec, name=old.name) for spec, old in zip(inputs, artifact.inputs, strict=True)
        ),
        outputs=tuple(
            dataclasses.replace(spec, layout="nhwc" if place in turned else "")
            for place, spec in enumerate(model_outputs(model))
        ),
        steps=(*artifact.steps, Step("tflite_from_onnx", f"onnx2tf {version}", options, digest)),
        findings=artifact.findings,
    )


def _taken_last(old: TensorSpec, new: TensorSpec, last: Sequence[str]) -> bool:
    turned = is_turned(old.shape, new.shape)
    return old.name in last if turned is None else turned


def _orders(model: Any, artifact: Artifact, inputs: Sequence[TensorSpec], workdir: Path) -> dict[int, tuple[int, ...]]:
    """The order in which the axes of each output have come: by their sizes, or where those leave a doubt by the values."""
    pairs = zip(artifact.outputs, model_outputs(model), strict=True)
    told = {place: orders(old.shape, new.shape) for place, (old, new) in enumerate(pairs)}
    doubtful = {place: found for place, found in told.items() if len(found) > 1}
    sure = {place: found[0] for place, found in told.items() if len(found) == 1}
    if doubtful:
        sure |= orders_by_values(workdir / "onnx2tf" / "model.onnx", model, inputs, doubtful)
    return sure


def _order(found: Sequence[TensorSpec], wanted: Sequence[TensorSpec], graph: Any, side: str) -> None:
    """Puts the graph's inputs or outputs into the original's order."""
    if len(found) != len(wanted):
        raise ConvertError(
            f"onnx2tf made {len(found)} {side} of {len(wanted)}", fix="build with --runtime onnxruntime", code="onnx2tf"
        )
    by_name = {_plain(spec.name): place for place, spec in enumerate(found)}
    places = [by_name.get(_plain(spec.name), place) for place, spec in enumerate(wanted)]
    if sorted(places) != list(range(len(found))):
        places = list(range(len(found)))
    setattr(graph, side, [int(getattr(graph, side)[place]) for place in places])


def _plain(name: str) -> str:
    return "".join(one if one.isalnum() else "_" for one in name)


def _explain(error: ConvertError) -> ConvertError:
    return ConvertError(
        error.what[:900],
        where=error.where,
        expected="operators that onnx2tf lowers to TFLite",
        fix="replace that operator in the model, or build with --runtime onnxruntime",
        code="unsupported-operator" if error.code == "onnx2tf" else error.code,
    )
