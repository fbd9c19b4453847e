"""One path through TensorRT's Python API from 8.5 to 11: parse, configure, build, open.

Only names are used, never the numbers behind them (STRONGLY_TYPED is 1 in 10 and 0 in 11). What differs is branched by
name: EXPLICIT_BATCH exists where it is needed (8.x), STRONGLY_TYPED from 10 on, BuilderFlag.FP16 and INT8 before 11,
`builder_optimization_level` from 8.6 on, IProgressMonitor from 10 on.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from agent.contract.errors import DeviceError, EdgepackError

Shapes = Dict[str, List[List[int]]]  # input name: least, usual and most shape
_KEPT_MESSAGES = 40


@dataclasses.dataclass(frozen=True)
class BuildRequest:
    """`precision` is the recipe's; `strong`: types come from the ONNX file alone. `level` None leaves TensorRT's own.

    `dla` is the number of a deep-learning accelerator; what it lacks runs on the GPU. `capability` ("SM86") is for
    TensorRT-RTX, which compiles for a GPU that is not there.
    """

    precision: str
    strong: bool
    profiles: List[Shapes] = dataclasses.field(default_factory=list)
    workspace_bytes: int = 0
    level: Optional[int] = None
    capability: str = ""
    dla: Optional[int] = None


@dataclasses.dataclass(frozen=True)
class Built:
    """The serialised engine and how it came about."""

    plan: bytes
    seconds: float
    strong: bool


class ParseError(EdgepackError):
    """The parser refused; `faults` has desc, node_name and node_operator of each refusal, as far as the version tells."""

    exit_code = 4

    def __init__(self, what: str, faults: List[Dict[str, str]], **parts: str) -> None:
        super().__init__(what, **parts)
        self.faults = faults


def make_logger(trt: Any, keep: Callable[[int, str], None]) -> Any:
    """A logger that hands every message with its severity (0 worst) to `keep`."""

    class Logger(trt.ILogger):  # type: ignore[misc]  # the base is whichever TensorRT is there
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            keep(int(severity), msg)

    return Logger()


def build(
    trt: Any, onnx: str, request: BuildRequest, logger: Any, progress: Callable[[str], None] = lambda _: None
) -> Built:
    """The engine of an ONNX file. Raises ParseError, or DeviceError (code build-failed) when the builder gives up."""
    builder = trt.Builder(logger)
    flags, strong = _network_flags(trt, request)
    network = builder.create_network(flags)
    _parse(trt, network, onnx, logger)
    config = _config(trt, builder, request, strong)
    monitor = _monitor(trt, progress)
    if monitor is not None:
        config.progress_monitor = monitor
    for shapes in request.profiles:
        _add_profile(builder, config, shapes)
    start = time.perf_counter()
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise DeviceError("TensorRT %s built no engine" % trt.__version__, code="build-failed")
    return Built(bytes(plan), time.perf_counter() - start, strong)


def _network_flags(trt: Any, request: BuildRequest) -> Tuple[int, bool]:
    names = trt.NetworkDefinitionCreationFlag
    explicit, strong = getattr(names, "EXPLICIT_BATCH", None), getattr(names, "STRONGLY_TYPED", None)
    if request.strong and strong is None:
        raise DeviceError(
            "TensorRT %s has no strongly typed networks" % trt.__version__,
            expected="TensorRT 10 or newer (JetPack 6.1), for which the bundle was built",
            fix="build again for a profile with this TensorRT version",
            code="runtime-version",
        )
    flags = 0
    if strong is None and explicit is not None:
        flags |= 1 << int(explicit)
    if request.strong and strong is not None:
        flags |= 1 << int(strong)
    return flags, request.strong


def _parse(trt: Any, network: Any, onnx: str, logger: Any) -> None:
    parser = trt.OnnxParser(network, logger)
    if parser.parse_from_file(onnx):
        return
    faults = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        fault = {"desc": str(error.desc())}
        # Neither is in 8.x.
        for name in ("node_name", "node_operator"):
            if hasattr(error, name):
                fault[name] = str(getattr(error, name)())
        faults.append(fault)
    told = "; ".join(" ".join(part for part in fault.values() if part) for fault in faults[:5])
    raise ParseError(
        "TensorRT %s does not take the model: %s" % (trt.__version__, told or "its parser says no more"),
        faults,
        fix="build the bundle again: the preflight on the host names the operator",
        code="parse-failed",
    )


def _config(trt: Any, builder: Any, request: BuildRequest, strong: bool) -> Any:
    config = builder.create_builder_config()
    if not strong:
        for part, name in (("fp16", "FP16"), ("int8", "INT8")):
            if part not in request.precision:
                continue
            flag = getattr(trt.BuilderFlag, name, None)
            if flag is None:
                raise DeviceError(
                    "TensorRT %s has no BuilderFlag.%s" % (trt.__version__, name),
                    expected="a bundle whose ONNX file holds the types itself",
                    fix="build again for a profile with this TensorRT version",
                    code="runtime-version",
                )
            config.set_flag(flag)
    if request.workspace_bytes:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request.workspace_bytes)
    if request.level is not None and hasattr(config, "builder_optimization_level"):
        config.builder_optimization_level = request.level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if request.dla is not None:
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = request.dla
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    if request.capability:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, request.capability), 0)
    return config


def _add_profile(builder: Any, config: Any, shapes: Shapes) -> None:
    profile = builder.create_optimization_profile()
    for name, (least, usual, most) in shapes.items():
        profile.set_shape(name, tuple(least), tuple(usual), tuple(most))
    if config.add_optimization_profile(profile) < 0:
        told = "; ".join("%s %s" % item for item in shapes.items())
        raise DeviceError("TensorRT refuses the optimisation profile: %s" % told, code="bad-profile")


def _monitor(trt: Any, progress: Callable[[str], None]) -> Any:
    if not hasattr(trt, "IProgressMonitor"):
        return None

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # as above
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: Optional[str], num_steps: int) -> None:
            del num_steps
            if parent_phase is None:
                progress("building the engine: %s" % phase_name)

        def phase_finish(self, phase_name: str) -> None:
            del phase_name

        def step_complete(self, phase_name: str, step: int) -> bool:
            del phase_name, step
            return True  # False would cancel the build

    return Monitor()


def open_engine(trt: Any, plan: bytes, logger: Any, dla: Optional[int] = None) -> Tuple[Any, Any]:
    """The runtime and the engine. Only after CUDA has been probed: without a driver a Runtime object crashes.

    Raises DeviceError (code engine-stale) when the plan does not deserialise: another TensorRT or another GPU made it.
    """
    runtime = trt.Runtime(logger)
    if dla is not None:
        runtime.DLA_core = dla
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise DeviceError(
            "the engine does not deserialise in TensorRT %s" % trt.__version__,
            expected="an engine that this TensorRT built on this GPU",
            code="engine-stale",
        )
    return runtime, engine


class Messages:
    """The last warnings and errors that TensorRT logged: its failures say why only there."""

    def __init__(self) -> None:
        self.errors: List[str] = []

    def __call__(self, severity: int, text: str) -> None:
        """Keeps what is an error."""
        # ILogger.Severity: INTERNAL_ERROR 0, ERROR 1, WARNING 2, INFO 3, VERBOSE 4: the same in every version.
        if severity <= 1:
            self.errors = [*self.errors, text][-_KEPT_MESSAGES:]

    def text(self) -> str:
        """The errors, one a line."""
        return "\n".join(self.errors)
