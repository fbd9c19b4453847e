"""A deserialised engine that runs: buffers by shape, one stream, four events around copies and computing.

One inference in flight, as a caller waits for it. What it holds is freed in `close`, engine before stream.
"""

from __future__ import annotations

import ctypes
import json
from typing import Any, Dict, List, Optional, Tuple

from agent.contract.errors import DeviceError
from agent.tensorrt.cudart import TO_DEVICE, TO_HOST, Cudart
from agent.tensorrt.layer_times import LayerTimes

PARTS = ("h2d", "compute", "d2h")
# trt.DataType by name: the numbers moved between versions, the names did not.
_TYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "BOOL": "bool",
    "UINT8": "uint8",
    "INT64": "int64",
}


class _Tensor:
    """An input or output and its two buffers."""

    def __init__(self, name: str, dtype: str, is_input: bool, on_host: bool) -> None:
        self.name, self.dtype, self.is_input, self.on_host = name, dtype, is_input, on_host
        self.shape: Tuple[int, ...] = ()
        self.size = -1
        self.capacity = -1
        self.host = 0
        self.device = 0


class Engine:
    """`runtime` and `engine` are TensorRT's own; the CUDA library does the rest. Raises DeviceError."""

    def __init__(self, trt: Any, runtime: Any, engine: Any, cuda: Cudart) -> None:
        self._trt, self._runtime, self._engine, self._cuda = trt, runtime, engine, cuda
        self._stream = 0
        self._events: List[int] = []
        self._context: Any = None
        self._listener: Optional[LayerTimes] = None
        self._tensors: List[_Tensor] = []
        self._parts: Dict[str, List[int]] = {name: [] for name in PARTS}
        try:
            self._tensors = [self._describe(index) for index in range(engine.num_io_tensors)]
            self._context = _context(engine)
            self._stream = cuda.stream()
            for _ in range(len(PARTS) + 1):
                self._events.append(cuda.event())
        except BaseException:
            self.close()
            raise

    def names(self, *, inputs: bool) -> List[str]:
        """The inputs' or the outputs' names, in the engine's order."""
        return [one.name for one in self._tensors if one.is_input == inputs]

    def io(self) -> Dict[str, Any]:
        """Inputs and outputs as the engine sees them: name, type and shape."""
        rows: Dict[str, Any] = {"inputs": [], "outputs": []}
        for one in self._tensors:
            shape = list(self._engine.get_tensor_shape(one.name))
            rows["inputs" if one.is_input else "outputs"].append((one.name, one.dtype, shape))
        return rows

    def run(self, feeds: Dict[str, Any]) -> List[Any]:
        """The outputs, in the engine's order; each part of the time is kept for `take_parts`."""
        self._prepare(feeds)
        cuda, stream = self._cuda, self._stream
        inputs = [one for one in self._tensors if one.is_input and not one.on_host]
        outputs = [one for one in self._tensors if not one.is_input]
        start, sent, done, back = self._events
        cuda.call("cudaEventRecord", start, stream)
        for one in inputs:
            cuda.call("cudaMemcpyAsync", one.device, one.host, one.size, TO_DEVICE, stream)
        cuda.call("cudaEventRecord", sent, stream)
        if not self._context.execute_async_v3(stream):
            raise DeviceError("TensorRT did not start the inference", fix="its log says why", code="run-failed")
        cuda.call("cudaEventRecord", done, stream)
        for one in outputs:
            cuda.call("cudaMemcpyAsync", one.host, one.device, one.size, TO_HOST, stream)
        cuda.call("cudaEventRecord", back, stream)
        cuda.call("cudaStreamSynchronize", stream)
        for name, first, last in zip(PARTS, self._events, self._events[1:]):
            self._parts[name].append(cuda.elapsed_ns(first, last))
        return [_array(one) for one in outputs]

    def take_parts(self) -> Dict[str, List[int]]:
        """Nanoseconds of copying in, computing, copying out, of every inference since the last call."""
        taken, self._parts = self._parts, {name: [] for name in PARTS}
        return taken

    def time_layers(self) -> None:
        """From now on TensorRT reports the time of every layer to `layer_times`; each inference then takes longer."""
        self._listener = LayerTimes(self._trt, self._context)

    def layer_times(self) -> List[Dict[str, Any]]:
        """The rows of `LayerTimes`."""
        return self._listener.rows() if self._listener else []

    def layers(self) -> List[Dict[str, Any]]:
        """The engine inspector's table. Raises DeviceError when TensorRT gives none."""
        inspector = self._engine.create_engine_inspector()
        text = inspector.get_engine_information(self._trt.LayerInformationFormat.JSON)
        try:
            rows = json.loads(text)["Layers"]
        except (ValueError, KeyError, TypeError) as error:
            raise DeviceError("the engine inspector's table cannot be read: %.200r" % text, code="inspector") from error
        return [row if isinstance(row, dict) else {"Name": str(row)} for row in rows]

    def close(self) -> None:
        """Frees everything, in the order that CUDA and TensorRT ask for."""
        self._context = self._engine = self._runtime = None
        for one in self._tensors:
            self._free(one)
        for event in self._events:
            self._cuda.call("cudaEventDestroy", event)
        if self._stream:
            self._cuda.call("cudaStreamDestroy", self._stream)
        self._events, self._stream, self._tensors = [], 0, []

    def _describe(self, index: int) -> _Tensor:
        name = self._engine.get_tensor_name(index)
        kind = self._engine.get_tensor_dtype(name).name
        if kind not in _TYPES:
            raise DeviceError(
                "the engine's %r has the type %s, which has no numpy type" % (name, kind),
                fix="build with keep_io_types = true (the default)",
                code="io-type",
            )
        is_input = self._engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT
        return _Tensor(name, _TYPES[kind], is_input, bool(is_input and self._engine.is_shape_inference_io(name)))

    def _prepare(self, feeds: Dict[str, Any]) -> None:
        changed = False
        for one in self._tensors:
            if one.is_input:
                changed = self._feed(one, feeds) or changed
        if not changed:
            return
        missing = self._context.infer_shapes()
        if missing:
            raise DeviceError("the engine still lacks: %s" % ", ".join(missing), code="missing-input")
        for one in self._tensors:
            if not one.is_input:
                self._room(one, tuple(self._context.get_tensor_shape(one.name)))
            address = one.host if one.on_host else one.device
            if not self._context.set_tensor_address(one.name, address):
                raise DeviceError("TensorRT refuses the buffer of %r" % one.name, code="run-failed")

    def _feed(self, one: _Tensor, feeds: Dict[str, Any]) -> bool:
        if one.name not in feeds:
            raise DeviceError(
                "there is no input %r" % one.name,
                expected="all of: %s" % ", ".join(self.names(inputs=True)),
                code="missing-input",
            )
        array = _as_type(feeds[one.name], one)
        changed = tuple(array.shape) != one.shape or one.size < 0
        if changed:
            if not self._context.set_input_shape(one.name, tuple(array.shape)):
                raise self._outside(one.name, list(array.shape))
            self._room(one, tuple(array.shape))
        ctypes.memmove(one.host, array.ctypes.data, array.nbytes)
        return changed

    def _outside(self, name: str, shape: List[int]) -> DeviceError:
        least, _, most = (list(one) for one in self._engine.get_tensor_profile_shape(name, 0))
        return DeviceError(
            "the shape %s of %r is outside what the engine was built for" % (shape, name),
            expected="from %s to %s" % (least, most),
            fix="build again with --shape %s=MIN:OPT:MAX around it" % name,
            code="bad-shape",
        )

    def _room(self, one: _Tensor, shape: Tuple[int, ...]) -> None:
        if any(size < 0 for size in shape):
            raise DeviceError(
                "the shape of the output %r depends on the data: %s" % (one.name, list(shape)),
                fix="keep the step that makes it (NonZero, NMS) out of the network, or pad its result",
                code="dynamic-output",
            )
        import numpy as np

        size = int(np.dtype(one.dtype).itemsize)
        for length in shape:
            size *= length
        if size > one.capacity:
            self._free(one)
            one.host = self._cuda.host_alloc(size)
            one.device = 0 if one.on_host else self._cuda.malloc(size)
            one.capacity = size
        one.shape, one.size = shape, size

    def _free(self, one: _Tensor) -> None:
        if one.host:
            self._cuda.call("cudaFreeHost", one.host)
        one.host = 0
        if one.device:
            self._cuda.call("cudaFree", one.device)
        one.device = 0
        one.capacity = -1


def _context(engine: Any) -> Any:
    context = engine.create_execution_context()
    if context is None:
        raise DeviceError(
            "TensorRT could not make an execution context",
            fix="free memory on the device: the engine needs its activations at once",
            code="out-of-memory",
        )
    return context


def _as_type(array: Any, one: _Tensor) -> Any:
    """The feed as the engine wants it. TensorRT 8 takes int64 inputs as int32: cast where every value fits."""
    import numpy as np

    if str(array.dtype) == one.dtype:
        return np.ascontiguousarray(array)
    cast = array.astype(one.dtype)
    if array.dtype.kind in "iu" and np.dtype(one.dtype).kind in "iu" and bool((cast == array).all()):
        return np.ascontiguousarray(cast)
    raise DeviceError(
        "the input %r is %s" % (one.name, array.dtype), expected="%s, as the engine has it" % one.dtype, code="io-type"
    )


def _array(one: _Tensor) -> Any:
    import numpy as np

    raw = ctypes.string_at(one.host, one.size)
    return np.frombuffer(raw, dtype=one.dtype).reshape(one.shape)


def count_types(layers: List[Dict[str, Any]]) -> Dict[str, int]:
    """How many layers take each type: what the engine was really built with."""
    counts: Dict[str, int] = {}
    for row in layers:
        first = (row.get("Inputs") or [{}])[0]
        text = str(first.get("Format/Datatype", "")) if isinstance(first, dict) else ""
        # "Channel major FP32 format where ..." or, from 8.6 on, "Int8" and the like.
        kind = next((one for one in ("Int8", "INT8", "Half", "FP16", "Float", "FP32") if one in text), "other")
        name = {"INT8": "int8", "Int8": "int8", "Half": "fp16", "FP16": "fp16", "Float": "fp32", "FP32": "fp32"}.get(
            kind, kind
        )
        counts["tensorrt-" + name] = counts.get("tensorrt-" + name, 0) + 1
    return counts
