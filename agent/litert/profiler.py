"""The time of each operator, by LiteRT's profiler, which its Python package does not reach: through libLiteRt.so with ctypes.

Source of the calls and of the event's form: LiteRT's litert/c/litert_compiled_model.h, litert_profiler.h and
litert_profiler_event.h; of the options' text: litert/c/options/litert_runtime_options.cc and litert_cpu_options.cc. A wrong
form would be read as nonsense, or crash, so other versions than those it was tried with are refused.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any, Dict, List, Tuple

from agent.contract.errors import DeviceError

VERSIONS = ("2.2.", "2.3.")
NO_LAYERS = "no-layers"
_ANY, OWN, DELEGATED = 1, 2, 8  # DEFAULT, OPERATOR_INVOKE_EVENT and DELEGATE_PROFILED_OPERATOR_INVOKE_EVENT
_CPU = 1  # kLiteRtHwAcceleratorCpu
_WRITE = 1  # kLiteRtTensorBufferLockModeWrite
_KERNELS = {"xnnpack": 0, "reference": 1, "cpu": 2}  # LiteRtCpuKernelMode
_TENSOR_TYPE = 512  # bytes; LiteRtRankedTensorType has less than a hundred
_DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Event(ctypes.Structure):
    _fields_ = [
        ("tag", ctypes.c_char_p),
        ("kind", ctypes.c_int),
        ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("memory", ctypes.c_int64 * 6),
        ("index", ctypes.c_uint64),
        ("more", ctypes.c_uint64),
        ("source", ctypes.c_int),
    ]


class Event:
    """One operator, once: `tag` is its name, `index` its place in the graph or within the delegate."""

    def __init__(self, kind: int, tag: str, index: int, elapsed_us: int) -> None:
        self.kind, self.tag, self.index, self.elapsed_us = kind, tag, index, elapsed_us


class ProfiledModel:
    """A model in LiteRT's CompiledModel on the CPU, with profiling on. Raises DeviceError (`no-layers`) saying why not."""

    def __init__(self, path: str, kernels: str, threads: int) -> None:
        """`kernels`: xnnpack, cpu or reference; `threads` 0: the runtime's default."""
        self._library = _library()
        self._kept: List[Any] = []  # what the library holds pointers to
        self._environment, self._model, options, self._compiled = (ctypes.c_void_p() for _ in range(4))
        self._call("LiteRtCreateEnvironment", ctypes.c_int(0), None, ctypes.byref(self._environment))
        self._call("LiteRtCreateModelFromFile", self._environment, os.fsencode(path), ctypes.byref(self._model))
        self._call("LiteRtCreateOptions", ctypes.byref(options))
        self._call("LiteRtSetOptionsHardwareAccelerators", options, ctypes.c_int(_CPU))
        self._add(options, "runtime_options_string", "enable_profiling = true\n")
        text = "kernel_mode = %d\n" % _KERNELS[kernels]
        self._add(options, "xnnpack", text + ("num_threads = %d\n" % threads if threads else ""))
        made = (self._environment, self._model, options, ctypes.byref(self._compiled))
        self._call("LiteRtCreateCompiledModel", *made)
        self._profiler = ctypes.c_void_p()
        self._call("LiteRtCompiledModelGetProfiler", self._compiled, ctypes.byref(self._profiler))
        self._signature = ctypes.c_void_p()
        self._call("LiteRtGetModelSignature", self._model, ctypes.c_size_t(0), ctypes.byref(self._signature))
        self._inputs, self._input_sizes = self._buffers("Input")
        self._outputs, _ = self._buffers("Output")
        self.names = [self._name(index) for index in range(len(self._inputs))]

    def feed(self, inputs: Dict[str, Any]) -> None:
        """Copies numpy arrays into the model's inputs. Raises DeviceError where names or sizes are not the model's."""
        for index, name in enumerate(self.names):
            value = inputs.get(name)
            if value is None or value.nbytes != self._input_sizes[index]:
                raise no_layers("LiteRT's profiler runs the model as it is: its input %r is of another size" % name)
            place = ctypes.c_void_p()
            self._call("LiteRtLockTensorBuffer", self._inputs[index], ctypes.byref(place), ctypes.c_int(_WRITE))
            ctypes.memmove(place, value.tobytes(), value.nbytes)
            self._call("LiteRtUnlockTensorBuffer", self._inputs[index])

    def run(self) -> None:
        """One inference of what was fed, its operators timed."""
        self._call("LiteRtStartProfiler", self._profiler)  # a reset ends it
        sides = ((len(side), (ctypes.c_void_p * len(side))(*side)) for side in (self._inputs, self._outputs))
        sizes = [part for count, side in sides for part in (ctypes.c_size_t(count), side)]
        self._call("LiteRtRunCompiledModel", self._compiled, ctypes.c_size_t(0), *sizes)

    def events(self) -> Tuple[List[Event], int]:
        """The operators' events of the last inference, in the order they ran, and the microseconds of it all."""
        count = ctypes.c_int()
        self._call("LiteRtGetNumProfilerEvents", self._profiler, ctypes.byref(count))
        found = (_Event * max(count.value, 1))()
        self._call("LiteRtGetProfilerEvents", self._profiler, ctypes.c_int(len(found)), found)
        kept = [
            Event(one.kind, (one.tag or b"").decode("utf-8", "replace"), one.index, one.elapsed_us)
            for one in found[: count.value]
            if one.kind in (OWN, DELEGATED)
        ]
        whole = sum(one.elapsed_us for one in found[: count.value] if one.kind == _ANY and one.tag == b"Invoke")
        self._call("LiteRtResetProfiler", self._profiler)
        return kept, whole

    def close(self) -> None:
        """Frees the compiled model before what it rests on."""
        for side in (self._inputs, self._outputs):
            for buffer in side:
                self._free("LiteRtDestroyTensorBuffer", buffer)
        self._free("LiteRtDestroyCompiledModel", self._compiled)
        self._free("LiteRtDestroyModel", self._model)
        self._free("LiteRtDestroyEnvironment", self._environment)

    def _call(self, name: str, *arguments: Any) -> None:
        function = getattr(self._library, name)
        function.restype = ctypes.c_int
        status = function(*arguments)
        if status:
            raise no_layers("LiteRT's profiler cannot be used: %s gives status %d" % (name, status))

    def _free(self, name: str, handle: Any) -> None:
        function = getattr(self._library, name)
        function.restype = None
        function(handle)

    def _add(self, options: Any, identifier: str, text: str) -> None:
        """An option group; the library keeps the pointers, so Python keeps what they point to."""
        word, payload = ctypes.c_char_p(identifier.encode()), ctypes.create_string_buffer(text.encode())
        nothing, opaque = _DELETER(lambda _: None), ctypes.c_void_p()
        self._kept += [word, payload, nothing]
        where = ctypes.cast(payload, ctypes.c_void_p)
        self._call("LiteRtCreateOpaqueOptions", word, where, nothing, ctypes.byref(opaque))
        self._call("LiteRtAddOpaqueOptions", options, opaque)

    def _buffers(self, side: str) -> Tuple[List[Any], List[int]]:
        count = ctypes.c_size_t()
        self._call("LiteRtGetNumSignature%ss" % side, self._signature, ctypes.byref(count))
        buffers, sizes = [], []
        for index in range(count.value):
            needs, tensor, buffer = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
            place = (ctypes.c_size_t(0), ctypes.c_size_t(index))
            self._call("LiteRtGetCompiledModel%sBufferRequirements" % side, self._compiled, *place, ctypes.byref(needs))
            self._call("LiteRtGetSignature%sTensorByIndex" % side, self._signature, place[1], ctypes.byref(tensor))
            form, size = (ctypes.c_byte * _TENSOR_TYPE)(), ctypes.c_size_t()
            self._call("LiteRtGetRankedTensorType", tensor, form)
            made = (self._environment, form, needs, ctypes.byref(buffer))
            self._call("LiteRtCreateManagedTensorBufferFromRequirements", *made)
            self._call("LiteRtGetTensorBufferPackedSize", buffer, ctypes.byref(size))
            buffers.append(buffer)
            sizes.append(size.value)
        return buffers, sizes

    def _name(self, index: int) -> str:
        name = ctypes.c_char_p()
        self._call("LiteRtGetSignatureInputName", self._signature, ctypes.c_size_t(index), ctypes.byref(name))
        return (name.value or b"").decode("utf-8", "replace")


def no_layers(why: str) -> DeviceError:
    """That layers cannot be told, which is no failure of the measurement."""
    return DeviceError(why, code=NO_LAYERS)


def _library() -> Any:
    from importlib import metadata, util

    found = util.find_spec("ai_edge_litert")
    if found is None or not found.submodule_search_locations:
        raise no_layers("tflite-runtime has no profiler: install ai-edge-litert 2.2 or 2.3 on the device for it")
    version = metadata.version("ai-edge-litert")
    if not version.startswith(VERSIONS) or sys.maxsize < 1 << 32:
        raise no_layers("the profiler of ai-edge-litert %s is not known: that of 2.2 and 2.3 on 64 bits is" % version)
    path = os.path.join(next(iter(found.submodule_search_locations)), "libLiteRt.so")
    try:
        return ctypes.CDLL(path)
    except OSError as error:
        raise no_layers("LiteRT's library does not load: %s" % error) from error
