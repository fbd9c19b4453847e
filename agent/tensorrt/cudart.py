"""The CUDA runtime by ctypes: the few calls that are needed, the same in CUDA 11.4, 12 and 13. No pycuda, no torch."""

from __future__ import annotations

import ctypes
import glob
import os
from typing import Any, Dict, List, Tuple

from agent.contract.errors import DeviceError

_POINTER, _INT, _UINT, _SIZE = ctypes.c_void_p, ctypes.c_int, ctypes.c_uint, ctypes.c_size_t
_OUT = ctypes.POINTER
_SIGNATURES: Dict[str, List[Any]] = {
    "cudaGetDeviceCount": [_OUT(_INT)],
    "cudaDeviceGetAttribute": [_OUT(_INT), _INT, _INT],
    "cudaMemGetInfo": [_OUT(_SIZE), _OUT(_SIZE)],
    "cudaRuntimeGetVersion": [_OUT(_INT)],
    "cudaDriverGetVersion": [_OUT(_INT)],
    "cudaMalloc": [_OUT(_POINTER), _SIZE],
    "cudaFree": [_POINTER],
    "cudaHostAlloc": [_OUT(_POINTER), _SIZE, _UINT],
    "cudaFreeHost": [_POINTER],
    "cudaMemcpyAsync": [_POINTER, _POINTER, _SIZE, _INT, _POINTER],
    "cudaStreamCreateWithFlags": [_OUT(_POINTER), _UINT],
    "cudaStreamSynchronize": [_POINTER],
    "cudaStreamDestroy": [_POINTER],
    "cudaEventCreateWithFlags": [_OUT(_POINTER), _UINT],
    "cudaEventRecord": [_POINTER, _POINTER],
    "cudaEventElapsedTime": [_OUT(ctypes.c_float), _POINTER, _POINTER],
    "cudaEventDestroy": [_POINTER],
}
_LIBRARIES = ["libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0", "libcudart.so"]
_FOLDERS = ["/usr/local/cuda/lib64", "/usr/local/cuda/targets/aarch64-linux/lib", "/usr/lib/aarch64-linux-gnu"]
TO_DEVICE, TO_HOST = 1, 2  # cudaMemcpyKind
_NON_BLOCKING = 1  # cudaStreamNonBlocking
_CAPABILITY = (75, 76)  # cudaDevAttrComputeCapabilityMajor and -Minor
_PROCESSORS, _INTEGRATED = 16, 18  # cudaDevAttrMultiProcessorCount, cudaDevAttrIntegrated
_OUT_OF_MEMORY = 2
# 35: the driver is older than the runtime, or there is none; 100: no device; 803, 999: driver and kernel do not fit.
_NO_GPU = {35, 100, 803, 999}


class Cudart:
    """The library at `path`, else the first that the device has. Raises DeviceError when there is none."""

    def __init__(self, path: str = "") -> None:
        self._library = _load([path] if path else find())
        for name, arguments in _SIGNATURES.items():
            function = getattr(self._library, name)
            function.argtypes = arguments
            function.restype = _INT
        for name in ("cudaGetErrorName", "cudaGetErrorString"):
            function = getattr(self._library, name)
            function.argtypes = [_INT]
            function.restype = ctypes.c_char_p

    def call(self, name: str, *arguments: Any) -> None:
        """Calls a function of the runtime. Raises DeviceError with CUDA's own name and words for what failed."""
        status = getattr(self._library, name)(*arguments)
        if not status:
            return
        code = (self._library.cudaGetErrorName(status) or b"").decode()
        text = (self._library.cudaGetErrorString(status) or b"").decode()
        what = "%s failed: %s (%d): %s" % (name, code, status, text)
        if status in _NO_GPU:
            raise DeviceError(
                "there is no usable NVIDIA GPU here: %s" % what,
                expected="a Jetson with its JetPack installed, and permission to use the GPU (group video)",
                fix="sudo usermod -aG video $USER, then log in again; or build with --runtime onnxruntime for the CPU",
                code="no-gpu",
            )
        if status == _OUT_OF_MEMORY:
            raise DeviceError(what, fix="stop other programs, or use a smaller model or batch", code="out-of-memory")
        raise DeviceError(what, code="cuda")

    def _value(self, name: str, kind: Any, *rest: Any) -> Any:
        value = kind()
        self.call(name, ctypes.byref(value), *rest)
        return value.value

    def devices(self) -> int:
        """The number of GPUs."""
        return int(self._value("cudaGetDeviceCount", _INT))

    def facts(self) -> Dict[str, Any]:
        """Compute capability, multiprocessors, whether memory is shared, CUDA's runtime and driver versions."""
        major, minor = (self._value("cudaDeviceGetAttribute", _INT, one, 0) for one in _CAPABILITY)
        return {
            "compute_capability": "%d.%d" % (major, minor),
            "sms": int(self._value("cudaDeviceGetAttribute", _INT, _PROCESSORS, 0)),
            "integrated": bool(self._value("cudaDeviceGetAttribute", _INT, _INTEGRATED, 0)),
            "cuda_runtime": version_text(self._value("cudaRuntimeGetVersion", _INT)),
            "cuda_driver": version_text(self._value("cudaDriverGetVersion", _INT)),
        }

    def memory(self) -> Tuple[int, int]:
        """Free and total memory of the GPU, in bytes."""
        free, total = _SIZE(), _SIZE()
        self.call("cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def malloc(self, size: int) -> int:
        """Device memory; CUDA gives no address for nothing, so at least one byte."""
        return int(self._value("cudaMalloc", _POINTER, max(size, 1)))

    def host_alloc(self, size: int) -> int:
        """Pinned memory of the host, which copies without a detour."""
        return int(self._value("cudaHostAlloc", _POINTER, max(size, 1), 0))

    def stream(self) -> int:
        """A stream of its own."""
        return int(self._value("cudaStreamCreateWithFlags", _POINTER, _NON_BLOCKING))

    def event(self) -> int:
        """An event with timing."""
        return int(self._value("cudaEventCreateWithFlags", _POINTER, 0))

    def elapsed_ns(self, start: int, stop: int) -> int:
        """Nanoseconds between two recorded events (CUDA resolves about half a microsecond)."""
        milliseconds = ctypes.c_float()
        self.call("cudaEventElapsedTime", ctypes.byref(milliseconds), start, stop)
        return round(milliseconds.value * 1e6)


def find() -> List[str]:
    """Where libcudart may be: the loader's own search first, then the CUDA folders."""
    found = list(_LIBRARIES)
    for folder in _FOLDERS:
        found += sorted(glob.glob(os.path.join(folder, "libcudart.so*")), reverse=True)
    return found


def _load(paths: List[str]) -> Any:
    faults = []
    for path in paths:
        try:
            return ctypes.CDLL(path)
        except OSError as error:
            faults.append(str(error))
    raise DeviceError(
        "the CUDA runtime (libcudart) is not on this device",
        where="; ".join(faults[:4]),
        expected="a Jetson with its JetPack installed",
        fix="sudo apt install nvidia-jetpack; or build with --runtime onnxruntime for the CPU",
        code="no-cuda",
    )


def version_text(number: int) -> str:
    """12060 is 12.6."""
    return "%d.%d" % (number // 1000, number % 1000 // 10)
