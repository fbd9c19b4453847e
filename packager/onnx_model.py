"""ONNX files: load with clear errors, describe, fix shapes, move the opset, save the same bytes every time."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.contract.errors import ConvertError, UsageError
from agent.contract.manifest import TensorSpec
from packager.shapes import Shape, show

# A protobuf message cannot exceed 2 GiB; beyond this the weights go into a file of their own.
_ONE_FILE_LIMIT = 1_500_000_000
_QUANTIZED = {
    "QuantizeLinear",
    "DequantizeLinear",
    "QLinearConv",
    "QLinearMatMul",
    "ConvInteger",
    "MatMulInteger",
    "DynamicQuantizeLinear",
    "QGemm",
    "QAttention",
    "DynamicQuantizeMatMul",
    "MatMulIntegerToFloat",
}
_NAMELESS = "?"
_LEAST_IR = 4  # before it, every initialiser had to be an input as well
_STANDARD = ("", "ai.onnx")
_RUNTIME_DOMAINS = ("com.microsoft", "com.microsoft.nchwc", "ai.onnx.ml", "ai.onnx.preview.training")


def need_onnxruntime() -> Any:
    """The onnxruntime module, its telemetry off: since 1.32 the releases send events to their maker and leave files in
    the temporary folder unless this variable is set before the first import ("Privacy.md" of onnxruntime).
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    return importlib.import_module("onnxruntime")


def load_model(path: Path, *, weights: bool = True) -> Any:
    """The ModelProto. Raises UsageError for what is no ONNX file, is cut off, or lacks its external data."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(str(path), load_external_data=False)
    except FileNotFoundError as error:
        raise UsageError("there is no such model file", where=str(path), code="no-model") from error
    except (DecodeError, ValueError, OSError) as error:
        raise UsageError(
            f"not a whole ONNX file: {error}",
            where=str(path),
            expected="an .onnx file as its exporter wrote it",
            fix="export or copy it again",
            code="not-onnx",
        ) from error
    if not model.graph.node and not model.graph.output:
        raise UsageError("not an ONNX model: there is no graph in it", where=str(path), code="not-onnx")
    missing = [name for name in external_files(model) if not (path.parent / name).is_file()]
    if missing:
        raise UsageError(
            f"the model's external data is missing: {', '.join(missing)}",
            where=str(path),
            expected=f"beside the model, in {path.parent}",
            fix="copy these files there too",
            code="no-external-data",
        )
    if weights:
        _load_weights(model, path)
    return model


def _load_weights(model: Any, path: Path) -> None:
    import onnx
    from onnx.external_data_helper import load_external_data_for_model

    try:
        load_external_data_for_model(model, str(path.parent))
    except (ValueError, OSError, onnx.checker.ValidationError) as error:
        raise UsageError(f"the external data cannot be read: {error}", where=str(path), code="external-data") from error


def external_files(model: Any) -> list[str]:
    """The names of the files that hold the model's external data, sorted."""
    found = set()
    for tensor in _tensors(model.graph):
        if tensor.data_location == tensor.EXTERNAL:
            found |= {entry.value for entry in tensor.external_data if entry.key == "location"}
    return sorted(found)


def _tensors(graph: Any) -> Any:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from _tensors(inner)


def check_model(model: Any, where: str) -> None:
    """Raises ConvertError for a graph that is not valid or has an operator that no runtime of ours knows."""
    import onnx

    versions = {entry.domain: entry.version for entry in model.opset_import}
    local = {(function.domain, function.name) for function in model.functions}
    for node in all_nodes(model.graph):
        if (node.domain, node.op_type) in local or node.domain in _RUNTIME_DOMAINS:
            continue
        version = versions.get(node.domain, versions.get("", versions.get("ai.onnx", 1)))
        known = node.domain in _STANDARD and onnx.defs.has(node.op_type, version)
        if not known:
            raise ConvertError(
                f"nobody knows the operator {node.domain or 'ai.onnx'}.{node.op_type}",
                where=f"node {node.name or node.output[0]!r} in {where}",
                expected=f"an operator of ONNX opset {version} or of onnxruntime (com.microsoft)",
                fix="replace the operator by standard ones before exporting",
                code="unknown-operator",
            )
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        if "Field 'shape' of 'type' is required" in str(error):
            return  # an output without a shape, which runtimes accept; inputs without one were refused before
        raise ConvertError(
            f"the ONNX graph is not valid: {str(error)[:600]}", where=where, code="invalid-onnx"
        ) from error
    except ValueError:
        # Above 2 GiB the checker cannot serialise the model; the reference run loads the file and tells.
        return


def told(error: BaseException, most: int = 400) -> str:
    """An error's text for a manifest: without folders and addresses, which differ between two builds of the same."""
    text = re.sub(r"(?<![\w/])/(?:[\w.+-]+/)+", "", str(error) or repr(error))
    return re.sub(r"0x[0-9a-fA-F]{6,}", "0x...", text)[:most]


def all_nodes(graph: Any) -> Any:
    """Every node, those of subgraphs included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from all_nodes(inner)


def is_quantized(model: Any) -> bool:
    """Whether the graph computes with quantised numbers already."""
    return any(node.op_type in _QUANTIZED for node in all_nodes(model.graph))


def has_signed_weights(model: Any) -> bool:
    """Whether any operator of `_QUANTIZED` is fed signed 8-bit weights with more than one dimension."""
    signed = {one.name for one in model.graph.initializer if one.data_type == one.INT8 and len(one.dims) > 1}
    return any(node.op_type in _QUANTIZED and signed & set(node.input) for node in all_nodes(model.graph))


def opset(model: Any) -> int:
    """The version of the standard operator set."""
    return max((entry.version for entry in model.opset_import if entry.domain in _STANDARD), default=1)


def describe(values: Any, initializers: set[str] | None = None) -> tuple[TensorSpec, ...]:
    """The graph's inputs or outputs as specs; initialisers, which old exporters list among the inputs, left out."""
    import onnx

    specs = []
    for value in values:
        if value.name in (initializers or set()):
            continue
        tensor = value.type.tensor_type
        if not value.type.HasField("tensor_type"):
            raise ConvertError(
                f"{value.name!r} is no tensor", expected="tensors as inputs and outputs", code="not-a-tensor"
            )
        dtype = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)) if tensor.elem_type else ""
        shape: list[int | str] = [_size(dim, f"{value.name}_{index}") for index, dim in enumerate(tensor.shape.dim)]
        specs.append(TensorSpec(name=value.name, dtype=dtype, shape=shape))
    return tuple(specs)


def _size(dim: Any, anonymous: str) -> int | str:
    """Paddle's exporters write -1, or "?" wherever they know nothing: both are free, and "?" is no name to share."""
    if dim.HasField("dim_value") and dim.dim_value >= 0:
        return int(dim.dim_value)
    return dim.dim_param if dim.dim_param not in ("", _NAMELESS) else anonymous


def model_inputs(model: Any) -> tuple[TensorSpec, ...]:
    """What the user must feed. Raises ConvertError for an input whose number of dimensions is not known."""
    filled = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        kind = value.type
        if value.name not in filled and kind.HasField("tensor_type") and not kind.tensor_type.HasField("shape"):
            raise ConvertError(
                f"the input {value.name!r} does not say how many dimensions it has",
                expected="a shape, whose sizes may be free",
                fix="export the model again with the shapes of its inputs",
                code="no-shape",
            )
    return describe(model.graph.input, {tensor.name for tensor in model.graph.initializer})


def model_outputs(model: Any) -> tuple[TensorSpec, ...]:
    """What comes out."""
    return describe(model.graph.output)


def lift_constants(model: Any) -> Any:
    """Constant nodes become initialisers, and initialisers are no inputs: quantisers see weights in no other place."""
    outputs = {value.name for value in model.graph.output}
    kept = []
    for node in model.graph.node:
        value = next((one for one in node.attribute if one.name == "value"), None)
        if node.op_type != "Constant" or node.domain not in _STANDARD or value is None or node.output[0] in outputs:
            kept.append(node)
            continue
        value.t.name = node.output[0]
        model.graph.initializer.append(value.t)
    if len(kept) < len(model.graph.node):
        del model.graph.node[:]
        model.graph.node.extend(kept)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) < len(model.graph.input):
        del model.graph.input[:]
        model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, _LEAST_IR)
    return model


def fix_shapes(model: Any, shapes: Mapping[str, Shape]) -> Any:
    """The model with these input shapes; a free dimension of the same name is set wherever it stands."""
    import onnx

    free_nameless(model)
    sizes: dict[str, int | str] = {}
    for value in model.graph.input:
        if value.name not in shapes:
            continue
        for dim, size in zip(value.type.tensor_type.shape.dim, shapes[value.name], strict=True):
            if dim.dim_param:
                sizes[dim.dim_param] = size
            _set_dim(dim, size)
    for value in [*model.graph.input, *model.graph.output]:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in sizes:
                _set_dim(dim, sizes[dim.dim_param])
    del model.graph.value_info[:]
    if _weights_bytes(model) >= _ONE_FILE_LIMIT:
        return model  # too large to be passed on as one message; the run on golden inputs will tell
    try:
        return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        wanted = ", ".join(f"{name}={show(shape)}" for name, shape in shapes.items())
        raise ConvertError(
            f"the model does not work with {wanted}: {str(error)[:400]}",
            fix="give a shape that the model's layers allow",
            code="bad-shape",
        ) from error


def free_nameless(model: Any) -> None:
    """Dimensions of which an exporter knew nothing (see `_size`) become plainly free."""
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == _NAMELESS or dim.dim_value < 0:
                dim.Clear()


def _set_dim(dim: Any, size: int | str) -> None:
    if isinstance(size, int):
        dim.dim_value = size
    else:
        dim.dim_param = size


def move_opset(model: Any, wanted: int) -> Any:
    """The model at opset `wanted`. Raises ConvertError when ONNX's version converter cannot."""
    import onnx

    now = opset(model)
    if now == wanted:
        return model
    try:
        moved = onnx.version_converter.convert_version(model, wanted)
        onnx.checker.check_model(moved)
    except (RuntimeError, ValueError, IndexError, onnx.checker.ValidationError) as error:
        relabelled = _relabel(model, wanted) if wanted < now else None
        if relabelled is not None:
            return relabelled
        raise ConvertError(
            f"the model cannot go from opset {now} to {wanted}: {told(error)}",
            fix=f"export it at opset {wanted}, or choose a profile whose runtime takes opset {now}",
            code="opset",
        ) from error
    return moved


def _relabel(model: Any, wanted: int) -> Any:
    """The model with the lower opset written on it, if every operator is valid there as it stands; else None.

    ONNX's converter lacks many ways down, even where a version only added types (Relu 13 to 14).
    """
    import onnx

    moved = type(model)()
    moved.CopyFrom(model)
    for entry in moved.opset_import:
        if entry.domain in _STANDARD:
            entry.version = wanted
    try:
        onnx.checker.check_model(moved, full_check=True)
    except (ValueError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return None
    return moved


def clean(model: Any) -> Any:
    """Removes what differs between machines and helps no runtime: doc strings, exporters' stack traces and paths."""
    for graph in [model.graph]:
        graph.doc_string = ""
        del graph.metadata_props[:]
        for value in [*graph.input, *graph.output, *graph.value_info]:
            value.doc_string = ""
            del value.metadata_props[:]
        for tensor in graph.initializer:
            tensor.doc_string = ""
            del tensor.metadata_props[:]
    for node in all_nodes(model.graph):
        node.doc_string = ""
        del node.metadata_props[:]
    model.doc_string = ""
    for function in model.functions:
        function.doc_string = ""
        del function.metadata_props[:]
        for node in function.node:
            node.doc_string = ""
            del node.metadata_props[:]
    return model


def _weights_bytes(model: Any) -> int:
    return sum(tensor.ByteSize() for tensor in model.graph.initializer)


def save_model(model: Any, path: Path) -> tuple[Path, ...]:
    """Writes the model; the companions (its external data) when it is too large for one file."""
    import onnx

    if _weights_bytes(model) < _ONE_FILE_LIMIT:
        path.write_bytes(model.SerializeToString(deterministic=True))
        return ()
    companion = path.with_suffix(".data")
    onnx.save_model(model, str(path), save_as_external_data=True, all_tensors_to_one_file=True, location=companion.name)
    return (companion,)
