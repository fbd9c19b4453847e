"""TFLite files as objects: read with suspicion, their inputs and outputs, names, operators, and written again."""

from __future__ import annotations

import collections
import contextlib
import importlib
import io
import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError, UsageError
from agent.contract.manifest import TensorSpec

if TYPE_CHECKING:
    from collections import Counter

IDENTIFIER = b"TFL3"
_LAST_OLD_CODE = 127  # what the field of files older than schema 3a holds, as a byte
_QUANTIZED = ("INT8", "UINT8", "INT16", "INT4")
_DTYPES = {
    "FLOAT32": "float32",
    "FLOAT16": "float16",
    "INT32": "int32",
    "UINT8": "uint8",
    "INT64": "int64",
    "BOOL": "bool",
    "INT16": "int16",
    "INT8": "int8",
    "FLOAT64": "float64",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "UINT16": "uint16",
    "STRING": "string",
    "COMPLEX64": "complex64",
}


def need(module: str) -> Any:
    """A module of the `tflite` extra. Raises UsageError that says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(
            f"{module.partition('.')[0]} is needed for TFLite: {error}",
            fix="pip install 'edgepack[tflite]'",
            code="no-tflite",
        ) from error


def schema() -> Any:
    """The flatbuffer schema's Python classes."""
    return need("ai_edge_litert.tools.flatbuffer_utils").schema_fb


def read_model(path: Path) -> Any:
    """The file as a mutable `ModelT`. Raises ConvertError for what is no whole TFLite file, UsageError for none."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"the model cannot be read: {error.strerror}", where=str(path), code="no-model") from error
    return parse_model(raw, path.name)


def peek_model(path: Path) -> Any:
    """As `read_model`, to look at and never to change: the last file that was looked at is not parsed again."""
    state = (path.resolve(), path.stat().st_mtime_ns, path.stat().st_size) if path.exists() else None
    if state is None or state not in _peeked:
        model = read_model(path)
        _peeked.clear()
        _peeked[state] = model
    return _peeked[state]


_peeked: dict[object, Any] = {}


def parse_model(raw: bytes, where: str = "") -> Any:
    """As `read_model`, from bytes."""
    if raw[4:8] != IDENTIFIER:
        raise ConvertError(
            "not a TFLite file",
            where=where,
            expected="the identifier TFL3 at byte 4",
            fix="convert it again",
            code="not-tflite",
        )
    _verify(raw, where)
    fb = schema()
    try:
        model = fb.ModelT.InitFromObj(fb.Model.GetRootAsModel(bytearray(raw), 0))
        main = model.subgraphs[0]
        _ = [len(tensor.name or b"") for tensor in main.tensors], [list(op.outputs) for op in main.operators or []]
    except Exception as error:
        # A damaged flatbuffer leads anywhere: struct, index, type and decoding errors.
        raise _damaged(where, str(error)) from error
    for graph in model.subgraphs:
        graph.operators = list(graph.operators or [])
        graph.tensors = list(graph.tensors or [])
    for code in model.operatorCodes:  # files older than schema 3a leave the newer field empty, which means ADD
        code.builtinCode = max(code.builtinCode or 0, code.deprecatedBuiltinCode or 0)
    _resolve(model, raw)
    return model


def _resolve(model: Any, raw: bytes) -> None:
    """Weights and options that lie behind the flatbuffer come into the model, as `to_bytes` writes what is inside only."""
    import numpy as np

    for buffer in model.buffers:
        if buffer.offset > 1:  # 0 and 1 say that there is none
            buffer.data = np.frombuffer(raw, np.uint8, count=buffer.size, offset=buffer.offset)
            buffer.offset = buffer.size = 0
    for graph in model.subgraphs:
        for op in graph.operators:
            if op.largeCustomOptionsOffset > 1:
                start = op.largeCustomOptionsOffset
                op.customOptions = np.frombuffer(raw, np.uint8, count=op.largeCustomOptionsSize, offset=start)
                op.largeCustomOptionsOffset = op.largeCustomOptionsSize = 0


def _verify(raw: bytes, where: str) -> None:
    # LiteRT checks the whole flatbuffer, offsets and all, before it looks at it.
    interpreter = need("ai_edge_litert.interpreter")
    kind = interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        interpreter.Interpreter(model_content=raw, experimental_op_resolver_type=kind)
    except Exception as error:
        told = str(error)
        if "custom op" in told.lower() or "op_name" in told or "registered" in told or "Encountered unresolved" in told:
            raise ConvertError(
                f"LiteRT does not know an operator of the model: {told[:400]}",
                where=where,
                expected="builtin TFLite operators",
                code="unsupported-operator",
            ) from error
        raise _damaged(where, told) from error


def _damaged(where: str, told: str) -> ConvertError:
    return ConvertError(
        f"the TFLite file is damaged: {told[:300]}",
        where=where,
        expected="a whole flatbuffer",
        fix="copy or convert it again",
        code="corrupt-tflite",
    )


def to_bytes(model: Any) -> bytes:
    """The model as a flatbuffer; the same model gives the same bytes."""
    return bytes(need("ai_edge_litert.tools.flatbuffer_utils").convert_object_to_bytearray(model))


def type_name(tensor: Any) -> str:
    """FLOAT32, INT8 ..."""
    for name, value in vars(schema().TensorType).items():
        if value == tensor.type and not name.startswith("_"):
            return str(name)
    return f"type {tensor.type}"


def dtype_of(tensor: Any) -> str:
    """The name that numpy has for the tensor's type."""
    name = type_name(tensor)
    return _DTYPES.get(name, name.lower())


def text(name: Any) -> str:
    """Names are bytes in the flatbuffer."""
    return name.decode("utf-8", "replace") if isinstance(name, (bytes, bytearray)) else str(name or "")


def _signature(model: Any) -> Any:
    found = [entry for entry in model.signatureDefs or [] if (entry.subgraphIndex or 0) == 0]
    return found[0] if found else None


def input_names(model: Any) -> list[str]:
    """By the signature's names, else the tensors' own, in the order of the graph."""
    return _names(model, "inputs")


def output_names(model: Any) -> list[str]:
    """As `input_names`."""
    return _names(model, "outputs")


def _names(model: Any, side: str) -> list[str]:
    graph = model.subgraphs[0]
    signature = _signature(model)
    maps = getattr(signature, side) if signature is not None else None
    by_index = {entry.tensorIndex: text(entry.name) for entry in maps or []}
    return [by_index.get(index, text(graph.tensors[index].name)) for index in getattr(graph, side)]


def model_inputs(model: Any) -> tuple[TensorSpec, ...]:
    """The inputs; a free dimension is called by its input and place."""
    return _specs(model, model.subgraphs[0].inputs, input_names(model))


def model_outputs(model: Any) -> tuple[TensorSpec, ...]:
    """The outputs."""
    return _specs(model, model.subgraphs[0].outputs, output_names(model))


def _specs(model: Any, indices: Iterable[int], names: Sequence[str]) -> tuple[TensorSpec, ...]:
    tensors = model.subgraphs[0].tensors
    specs = []
    for index, name in zip(indices, names, strict=True):
        tensor = tensors[index]
        given = [] if tensor.shape is None else [int(size) for size in tensor.shape]
        free = given if tensor.shapeSignature is None else [int(size) for size in tensor.shapeSignature]
        if len(free) != len(given):
            free = given
        shape: list[int | str] = [
            size if size >= 0 else f"{name}_{axis}" for axis, size in enumerate(free if given else [])
        ]
        specs.append(TensorSpec(name=name, dtype=dtype_of(tensor), shape=shape))
    return tuple(specs)


def scale_of(tensor: Any) -> tuple[float, int] | None:
    """Scale and zero point of a tensor quantised as a whole; None for any other."""
    q = tensor.quantization
    if q is None or q.scale is None or len(q.scale) != 1 or type_name(tensor) not in _QUANTIZED:
        return None
    zero = 0 if q.zeroPoint is None or not len(q.zeroPoint) else int(q.zeroPoint[0])
    return float(q.scale[0]), zero


def quantization_of(model: Any) -> dict[str, dict[str, Any]]:
    """Scale and zero point of every quantised input and output, by name."""
    graph = model.subgraphs[0]
    found = {}
    for indices, names in ((graph.inputs, input_names(model)), (graph.outputs, output_names(model))):
        for index, name in zip(indices, names, strict=True):
            scale = scale_of(graph.tensors[index])
            if scale is not None:
                found[name] = {"scale": scale[0], "zero_point": scale[1]}
    return found


def is_quantized(model: Any) -> bool:
    """Whether any operator's data are quantised integers."""
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            q = tensor.quantization
            if q is not None and q.scale is not None and len(q.scale) and type_name(tensor) in _QUANTIZED:
                return True
    return False


def operator_code(model: Any, name: str) -> int:
    """The place of an operator among the codes of the file, put there where it is not."""
    fb = schema()
    for place in range(len(model.operatorCodes)):
        probe = fb.OperatorT()
        probe.opcodeIndex = place
        if operator_name(model, probe) == name:
            return place
    code = fb.OperatorCodeT()
    code.builtinCode = getattr(fb.BuiltinOperator, name)
    code.deprecatedBuiltinCode = min(code.builtinCode, _LAST_OLD_CODE)
    code.version = 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def operator_name(model: Any, op: Any) -> str:
    """CONV_2D ..., or the custom operator's own name."""
    code = model.operatorCodes[op.opcodeIndex]
    builtin = schema().BuiltinOperator
    number = code.builtinCode
    if number == builtin.CUSTOM:
        return text(code.customCode)
    for name, value in vars(builtin).items():
        if value == number and not name.startswith("_"):
            return str(name)
    return f"BUILTIN_{number}"


def operator_counts(model: Any) -> Counter[str]:
    """How often each operator occurs, in all subgraphs."""
    return collections.Counter(operator_name(model, op) for graph in model.subgraphs for op in graph.operators)


def constant(model: Any, tensor: Any) -> Any:
    """The values of a constant tensor as an array, or None for one that is computed."""
    import numpy as np

    buffer = model.buffers[tensor.buffer]
    if buffer.data is None or not len(buffer.data):
        return None
    shape = [] if tensor.shape is None else [int(size) for size in tensor.shape]
    raw = bytes(bytearray(buffer.data))
    return np.frombuffer(raw, dtype=dtype_of(tensor)).reshape(shape)


def rename(model: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Gives the inputs and outputs these names, as tensors and in a signature `serving_default`."""
    fb = schema()
    graph = model.subgraphs[0]
    taken = {*inputs, *outputs}
    for index, tensor in enumerate(graph.tensors):
        if text(tensor.name) in taken:
            tensor.name = f"{text(tensor.name)}__{index}".encode()
    signature = fb.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    for side, names in (("inputs", inputs), ("outputs", outputs)):
        maps = []
        for index, name in zip(getattr(graph, side), names, strict=True):
            graph.tensors[index].name = name.encode()
            entry = fb.TensorMapT()
            entry.name, entry.tensorIndex = name.encode(), int(index)
            maps.append(entry)
        setattr(signature, side, maps)
    model.signatureDefs = [signature]


def compact(model: Any) -> None:
    """Drops tensors and buffers that nothing uses any more (after operators were removed)."""
    for number, graph in enumerate(model.subgraphs):
        used = {int(index) for side in (graph.inputs, graph.outputs) for index in side}
        for op in graph.operators:
            for side in (op.inputs, op.outputs, op.intermediates):
                used |= {int(index) for index in (side if side is not None else []) if index >= 0}
        place = {old: new for new, old in enumerate(sorted(used))}
        graph.tensors = [graph.tensors[old] for old in sorted(used)]
        graph.inputs = [place[int(index)] for index in graph.inputs]
        graph.outputs = [place[int(index)] for index in graph.outputs]
        for op in graph.operators:
            for side in ("inputs", "outputs", "intermediates"):
                indices = getattr(op, side)
                if indices is not None:
                    setattr(op, side, [place.get(int(index), -1) for index in indices])
        for signature in model.signatureDefs or []:
            if (signature.subgraphIndex or 0) == number:
                for entry in [*(signature.inputs or []), *(signature.outputs or [])]:
                    entry.tensorIndex = place[int(entry.tensorIndex)]
    _compact_buffers(model)


def _compact_buffers(model: Any) -> None:
    used = {0} | {int(tensor.buffer) for graph in model.subgraphs for tensor in graph.tensors}
    used |= {int(entry.buffer) for entry in model.metadata or []}
    place = {old: new for new, old in enumerate(sorted(used))}
    model.buffers = [model.buffers[old] for old in sorted(used)]
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            tensor.buffer = place[int(tensor.buffer)]
    for entry in model.metadata or []:
        entry.buffer = place[int(entry.buffer)]
    if model.metadataBuffer is not None:
        model.metadataBuffer = [place[int(index)] for index in model.metadataBuffer if int(index) in place]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The converter draws its progress on both streams and logs; stdout is ours, and errors carry what matters."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow says that oneDNN is on past every log level, when it is imported. Nothing is computed with it here, and a
    # process that computes must not inherit this.
    talks = "TF_ENABLE_ONEDNN_OPTS" not in os.environ
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    try:
        nowhere = io.StringIO()
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        if talks:
            del os.environ["TF_ENABLE_ONEDNN_OPTS"]
