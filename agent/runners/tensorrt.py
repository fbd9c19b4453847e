"""TensorRT: the engine is built here from the bundle's ONNX file, kept, checked and run on the GPU or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from agent.contract.errors import ContractError, DeviceError, nearest
from agent.contract.manifest import Manifest
from agent.tensorrt import api, cache, ladder, trtexec
from agent.tensorrt.cudart import Cudart
from agent.tensorrt.engine import Engine, count_types
from agent.workshop import Prepared, Workshop

DISTRIBUTIONS = ["tensorrt"]
PACKAGES = ["tensorrt"]
# Never from a package index: the wheels there are for servers.
INSTALL = "sudo apt install nvidia-jetpack; its bindings are for the system's interpreter: --python /usr/bin/python3"
_PROVIDERS = ("", "tensorrt", "gpu", "cuda")
_OPTIONS = ("precision", "strong", "workspace_bytes", "profiles", "dla")


def installed_version() -> Optional[str]:
    """The version of the Python bindings, or of trtexec where there are none; JetPack brings both as Debian packages."""
    from importlib import metadata

    try:
        return metadata.version("tensorrt")
    except metadata.PackageNotFoundError:
        return trtexec.installed_version()


def prepare(manifest: Manifest, folder: str, options: Dict[str, Any], shop: Workshop) -> Prepared:
    """The engine, built or from the cache."""
    _check_provider(options.get("provider") or "")
    _check_options(manifest.session_options)
    return ladder.prepare(manifest, folder, options, shop)


def environment(*, progress: Callable[[str], None]) -> Dict[str, Any]:
    """What an engine depends on: TensorRT, GPU, CUDA. CUDA is asked first: without it TensorRT's objects crash.

    Raises DeviceError when there is no GPU, or neither the bindings nor trtexec.
    """
    del progress
    cuda = Cudart()
    if not cuda.devices():
        raise DeviceError(
            "CUDA finds no GPU", fix="reboot; on a Jetson: sudo apt install nvidia-jetpack", code="no-gpu"
        )
    facts = cuda.facts()
    try:
        version, backend = str(_tensorrt().__version__), "python"
    except DeviceError:
        found = trtexec.find()
        if found is None:
            raise
        version, backend = trtexec.version(found), "trtexec"
    return {**facts, "tensorrt": version, "backend": backend}


def build_engine(
    *,
    onnx: str,
    recipe: Dict[str, Any],
    rung: Dict[str, Any],
    place: str,
    name: str,
    backend: str,
    facts: Dict[str, Any],
    progress: Callable[[str], None],
) -> Dict[str, Any]:
    """One rung of the ladder: builds, and keeps the engine in the cache. Returns its record, with its path."""
    request = api.BuildRequest(
        precision=recipe["precision"],
        strong=recipe["strong"],
        profiles=recipe.get("profiles", []),
        workspace_bytes=rung["workspace_bytes"],
        level=rung["level"],
        dla=recipe.get("dla"),
    )
    if backend == "trtexec":
        built = trtexec.build(onnx, request, Path(place), progress)
    else:
        trt = _tensorrt()
        messages = api.Messages()
        try:
            built = api.build(trt, onnx, request, api.make_logger(trt, messages), progress)
        except DeviceError as error:
            error.where = messages.text()[-2000:] or error.where
            if "emory" in error.where and error.code == "build-failed":
                error.code = "out-of-memory"
            raise
    return cache.keep(Path(place), name, built.plan, {**facts, "seconds": built.seconds, "rung": rung})


def open_engine(*, path: str, sha256: str, progress: Callable[[str], None]) -> bool:
    """Whether a cached engine deserialises here. Raises DeviceError (code engine-stale) when it does not."""
    del progress
    plan = cache.read(path, sha256)
    try:
        trt = _tensorrt()
    except DeviceError:
        if trtexec.find() is None:
            raise
        return True  # trtexec opens it when it runs, and says so
    messages = api.Messages()
    runtime, engine = api.open_engine(trt, plan, api.make_logger(trt, messages))
    del engine, runtime
    return True


class Runner:
    """An engine on the GPU."""

    name = "tensorrt"

    def __init__(self) -> None:
        self._engine: Any = None

    def load(self, path: str, options: Dict[str, Any]) -> None:
        """`options`: engine and sha256 (from `prepare`), session_options, layer_times. Raises DeviceError."""
        _check_provider(options.get("provider") or "")
        if "engine" not in options:
            raise DeviceError(
                "an engine file is no model",
                where=os.path.basename(path),
                expected="a prepared bundle",
                code="no-engine",
            )
        plan = cache.read(options["engine"], options["sha256"])
        dla = (options.get("session_options") or {}).get("dla")
        if options.get("backend") == "trtexec":
            self._engine = trtexec.Engine(options["engine"], dla)
            return
        cuda = Cudart()
        if not cuda.devices():
            raise DeviceError("CUDA finds no GPU", code="no-gpu")
        trt = _tensorrt()
        messages = api.Messages()
        self._logger = api.make_logger(trt, messages)  # must outlive the runtime
        runtime, engine = api.open_engine(trt, plan, self._logger, dla)
        self._engine = Engine(trt, runtime, engine, cuda)
        if options.get("layer_times"):
            self._engine.time_layers()

    def version(self) -> str:
        """TensorRT's version."""
        return installed_version() or str(_tensorrt().__version__)

    def provider(self) -> str:
        """Always the GPU."""
        return "tensorrt"

    def io(self) -> Dict[str, Any]:
        """Inputs and outputs as the engine sees them: name, type and shape."""
        return self._engine.io()  # type: ignore[no-any-return]

    def run(self, inputs: Dict[str, Any]) -> List[Any]:
        """The outputs, in the order of `output_names`."""
        return self._engine.run(inputs)  # type: ignore[no-any-return]

    def output_names(self) -> List[str]:
        """The names that `run`'s values belong to."""
        return self._engine.names(inputs=False)  # type: ignore[no-any-return]

    def take_parts(self) -> Dict[str, List[int]]:
        """Copying in, computing, copying out, by CUDA's events; nanoseconds of each inference since the last call."""
        return self._engine.take_parts()  # type: ignore[no-any-return]

    def placement(self) -> Dict[str, int]:
        """How many layers of the engine take each type, from the engine inspector."""
        return count_types(self._engine.layers())

    def layers(self) -> List[Dict[str, Any]]:
        """TensorRT's own time of each layer; needs `layer_times` at load."""
        return self._engine.layer_times()  # type: ignore[no-any-return]

    def close(self) -> None:
        """Frees the engine, its buffers, stream and events."""
        if self._engine is not None:
            self._engine.close()
        self._engine = None


def _tensorrt() -> Any:
    try:
        import tensorrt
    except ImportError as error:
        raise DeviceError(
            "tensorrt does not import on the device: %s" % error,
            expected="the interpreter that JetPack's python3-libnvinfer is installed for (/usr/bin/python3)",
            fix=INSTALL,
            code="no-runtime",
        ) from error
    return tensorrt


def _check_provider(asked: str) -> None:
    if asked.lower() not in _PROVIDERS:
        raise DeviceError(
            "TensorRT runs on the GPU: it has no provider %r" % asked,
            expected="nothing, or tensorrt",
            fix="for the CPU or onnxruntime's CUDA provider build with --runtime onnxruntime",
            code="no-provider",
        )


def _check_options(options: Dict[str, Any]) -> None:
    for name in options:
        if name not in _OPTIONS:
            near = nearest(name, _OPTIONS)
            hint = "did you mean %r?" % near if near else "known: %s" % ", ".join(_OPTIONS)
            raise ContractError("unknown session option %r (%s)" % (name, hint), code="unknown-key")
