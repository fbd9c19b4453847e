"""Rewrites that change nothing of what a model computes, and make TensorRT take it. Each is said in the bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError
from packager.tensorrt import operators
from packager.tensorrt.graph import Constants, input_at, node_label, users

if TYPE_CHECKING:
    import numpy as np

_INT32 = (-(2**31), 2**31 - 1)
_UINT8_MIDDLE = 128
_STANDARD = ("", "ai.onnx")


def repair(model: Any, version: tuple[int, int]) -> tuple[Any, list[str]]:
    """The model with every rewrite that applies for this TensorRT, and what was done, in words."""
    told: list[str] = []
    model = expand_functions(model, version, told)
    shift_zero_points(model, told)
    float_biases(model, told)
    if version < (10, 0):
        narrow_slices(model, told)
    return model, told


def expand_functions(model: Any, version: tuple[int, int], told: list[str]) -> Any:
    """Operators that this version lacks, and that ONNX itself defines by others, become these others."""
    import onnx
    from onnx.inliner import inline_selected_functions

    from packager.onnx_model import all_nodes, opset

    done: set[str] = set()
    for _ in range(4):  # a body may hold operators that must be expanded too
        names = {
            node.op_type
            for node in all_nodes(model.graph)
            if node.domain in _STANDARD and not operators.takes(node.op_type, version)
        }
        wanted = sorted(name for name in names if _has_body(name, opset(model)))
        if not wanted or set(wanted) <= done:
            break
        try:
            # The inliner asks for the types of all that goes into a body, constants included.
            _type_constants(model.graph)
            model = onnx.shape_inference.infer_shapes(model)
            model = inline_selected_functions(model, [("", name) for name in wanted], inline_schema_functions=True)
        except (RuntimeError, ValueError, onnx.shape_inference.InferenceError) as error:
            raise ConvertError(
                f"{', '.join(wanted)} could not be decomposed: {str(error)[:400]}", code="decompose"
            ) from error
        done |= set(wanted)
    left = {node.op_type for node in all_nodes(model.graph)}
    gone = sorted(done - left)
    if gone:
        told.append(f"decomposed as ONNX defines it: {', '.join(gone)}")
    return model


def _type_constants(graph: Any) -> None:
    import onnx

    known = {value.name for value in (*graph.value_info, *graph.input)}
    for tensor in graph.initializer:
        if tensor.name not in known:
            graph.value_info.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))


def _has_body(name: str, opset: int) -> bool:
    import onnx

    if not onnx.defs.has(name, opset):
        return False
    schema = onnx.defs.get_schema(name, opset)
    return bool(schema.has_function or schema.has_context_dependent_function)


def shift_zero_points(model: Any, told: list[str]) -> None:
    """uint8 around 128 becomes int8 around 0: the same numbers, in the only form that TensorRT knows."""
    import onnx

    graph = model.graph
    constants = Constants(graph)
    shifted = 0
    for node in graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        point = constants.get(input_at(node, 2)) if input_at(node, 2) else None
        if point is None or point.dtype.name != "uint8" or (point != _UINT8_MIDDLE).any():
            continue
        weights = constants.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if weights is not None:
            node.input[0] = _add(
                graph, f"{node.input[0]}_int8", (weights.astype("int16") - _UINT8_MIDDLE).astype("int8")
            )
        zeros = point.astype("int8") * 0
        node.input[2] = _add(graph, f"{node.input[2]}_int8", zeros)
        for value in graph.value_info:
            if value.name == node.output[0] and node.op_type == "QuantizeLinear":
                value.type.tensor_type.elem_type = onnx.TensorProto.INT8
        shifted += 1
    if shifted:
        _drop_unused(graph)
        told.append(f"{shifted} Q/DQ nodes from uint8 around 128 to int8 around 0")


def float_biases(model: Any, told: list[str]) -> None:
    """A bias kept as int32 with a scale becomes the float numbers that it stands for."""
    graph = model.graph
    constants = Constants(graph)
    kept, freed = [], 0
    for node in graph.node:
        values = constants.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if values is None or values.dtype.name != "int32":
            kept.append(node)
            continue
        scale = constants.get(node.input[1])
        point = constants.get(input_at(node, 2)) if input_at(node, 2) else None
        if scale is None or (point is not None and point.any()):
            kept.append(node)
            continue
        # In float32, as DequantizeLinear itself computes.
        _add(graph, node.output[0], (values.astype("float32") * scale.astype("float32")).astype(scale.dtype))
        freed += 1
    if freed:
        del graph.node[:]
        graph.node.extend(kept)
        _drop_unused(graph)
        told.append(f"{freed} quantised biases to the floats that they stand for")


def narrow_slices(model: Any, told: list[str]) -> None:
    """Slice bounds beyond int32 ("to the end") become int32's own: TensorRT 8 casts int64 down, with warnings."""
    import numpy as np

    graph = model.graph
    constants = Constants(graph)
    narrowed = 0
    for node in graph.node:
        for index in (1, 2) if node.op_type == "Slice" else ():
            value = constants.get(input_at(node, index)) if input_at(node, index) else None
            if value is None or value.dtype.name != "int64" or not ((value < _INT32[0]) | (value > _INT32[1])).any():
                continue
            node.input[index] = _add(graph, f"{node.input[index]}_{node_label(node)}_int32", np.clip(value, *_INT32))
            narrowed += 1
    if narrowed:
        _drop_unused(graph)
        told.append(f"{narrowed} slice bounds brought within int32")


def fold(model: Any, path: Path) -> Any:
    """The model with all that depends on no input computed beforehand, by onnxruntime's basic (exact) passes."""
    import onnxruntime

    from packager.compress.quantize.onnx_static import quiet
    from packager.onnx_model import load_model, save_model

    source = path.with_name("unfolded.onnx")
    save_model(model, source)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    # Fusions into onnxruntime's own operators are no constants; QDQ ones would take Q/DQ pairs apart.
    skipped = ["MatMulAddFusion", "GemmActivationFusion", "QDQPropagationTransformer", "ReshapeFusion"]
    try:
        with quiet():
            onnxruntime.InferenceSession(
                str(source), options, providers=["CPUExecutionProvider"], disabled_optimizers=skipped
            )
        folded = load_model(path)
    except Exception as error:
        # onnxruntime's classes have no common base below Exception.
        raise ConvertError(f"folding constants failed: {str(error)[:400]}", code="fold") from error
    return folded


def _add(graph: Any, name: str, value: np.ndarray[Any, Any]) -> str:
    """Adds an initialiser; the same name twice stays one."""
    import onnx

    if name not in {tensor.name for tensor in graph.initializer}:
        graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    return name


def _drop_unused(graph: Any) -> None:
    used = set(users(graph)) | {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used or _in_subgraph(graph, tensor.name)]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _in_subgraph(graph: Any, name: str) -> bool:
    from packager.onnx_model import all_nodes

    return any(name in node.input for node in all_nodes(graph))
