"""TFLite: ai-edge-litert, or tflite-runtime on old systems; XNNPACK on or off, and which operators it took."""

from __future__ import annotations

import importlib
import os
from typing import Any, Dict, List, Optional, Set

from agent.contract.errors import ContractError, DeviceError
from agent.litert import layers as litert_layers
from agent.litert.profiler import Event, ProfiledModel

DISTRIBUTIONS = ["ai-edge-litert", "tflite-runtime"]
MODULES = ["ai_edge_litert.interpreter", "tflite_runtime.interpreter"]
PACKAGES = ["ai-edge-litert"]
PROVIDERS = ("xnnpack", "cpu")

_OPTIONS = ("resolver",)
_RESOLVERS = {
    "xnnpack": "AUTO",
    "cpu": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    "reference": "BUILTIN_REF",
}


class Runner:
    """A model in an Interpreter."""

    name = "tflite"

    def __init__(self) -> None:
        self._interpreter: Any = None
        self._provider = ""
        self._demanded = False
        self._module = ""
        self._names: List[str] = []
        self._inputs: Dict[str, int] = {}
        self._outputs: List[int] = []
        self._scales: List[Any] = []
        self._shapes: Dict[str, Any] = {}
        self._profiled: Optional[ProfiledModel] = None
        self._events: List[List[Event]] = []

    def load(self, path: str, options: Dict[str, Any]) -> None:
        """`options`: threads (0: the runtime's default), provider (xnnpack or cpu), session_options ("resolver"), layer_times.

        Raises DeviceError when the runtime does not work or the model does not load; `no-layers` when `layer_times` are asked
        for and LiteRT's profiler cannot be used.
        """
        module = _import()
        self._module = module.__name__.partition(".")[0]
        self._provider = (options.get("provider") or "xnnpack").lower()
        self._demanded = bool(options.get("provider"))
        if self._provider not in PROVIDERS:
            raise DeviceError(
                "TFLite has no provider %r" % self._provider,
                expected="one of: %s" % ", ".join(PROVIDERS),
                code="no-provider",
            )
        settings = dict(options.get("session_options") or {})
        _check_options(settings)
        kernels = settings.get("resolver") or self._provider
        resolver = getattr(module.OpResolverType, _RESOLVERS[kernels])
        try:
            self._interpreter = module.Interpreter(
                model_path=path,
                num_threads=options.get("threads") or None,
                experimental_op_resolver_type=resolver,
            )
            self._interpreter.allocate_tensors()
        except Exception as error:
            raise _load_failed(path, self.version(), self._module, error) from error
        self._bind()
        if options.get("layer_times"):
            self._profiled = ProfiledModel(path, kernels, options.get("threads") or 0)

    def _bind(self) -> None:
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        names_in, names_out = self._signature_names()
        self._inputs = {names_in.get(one["index"], one["name"]): one["index"] for one in inputs}
        self._shapes = {names_in.get(one["index"], one["name"]): tuple(one["shape"]) for one in inputs}
        self._names = [names_out.get(one["index"], one["name"]) for one in outputs]
        self._outputs = [one["index"] for one in outputs]
        self._scales = [one["quantization"] for one in outputs]
        self._set, self._get = self._interpreter.set_tensor, self._interpreter.get_tensor
        self._invoke = self._interpreter.invoke

    def _signature_names(self) -> Any:
        """Tensor index to name, for inputs and outputs, by the model's first signature."""
        keys = list(self._interpreter.get_signature_list() or {})
        if not keys:
            return {}, {}
        signature = self._interpreter.get_signature_runner(keys[0])
        sides = (signature.get_input_details(), signature.get_output_details())
        return tuple({detail["index"]: name for name, detail in side.items()} for side in sides)

    def version(self) -> str:
        """The runtime's version, with the package's name where it is the fallback."""
        from importlib import metadata

        package = self._module.replace("_", "-")
        found = metadata.version(package)
        return found if package == DISTRIBUTIONS[0] else "%s (%s)" % (found, package)

    def provider(self) -> str:
        """The provider: xnnpack or cpu."""
        return self._provider

    def io(self) -> Dict[str, Any]:
        """Inputs and outputs as the runtime sees them: name, type and shape."""
        sides = {"inputs": self._interpreter.get_input_details(), "outputs": self._interpreter.get_output_details()}
        return {
            key: [(one["name"], str(one["dtype"].__name__), list(one["shape"])) for one in side]
            for key, side in sides.items()
        }

    def run(self, inputs: Dict[str, Any]) -> List[Any]:
        """The outputs, in the order of `output_names`; quantised ones as integers."""
        for name, value in inputs.items():
            if value.shape != self._shapes[name]:
                self._resize(name, value.shape)
            self._set(self._inputs[name], value)
        self._invoke()
        return [self._get(index) for index in self._outputs]

    def _resize(self, name: str, shape: Any) -> None:
        self._interpreter.resize_tensor_input(self._inputs[name], list(shape))
        self._interpreter.allocate_tensors()
        self._shapes[name] = tuple(shape)

    def real_outputs(self, outputs: List[Any]) -> List[Any]:
        """The numbers that quantised outputs stand for; others as they are."""
        return [
            ((value.astype("float64") - zero) * scale).astype("float32") if scale else value
            for value, (scale, zero) in zip(outputs, self._scales)
        ]

    def output_names(self) -> List[str]:
        """The names that `run`'s values belong to."""
        return self._names

    def placement(self) -> Dict[str, int]:
        """How many operators the delegate took, and how many ran in TFLite's own kernels.

        Raises DeviceError when XNNPACK was asked for by name and took nothing.
        """
        nodes = self._interpreter._get_ops_details()  # noqa: SLF001 - LiteRT has no public list of operators
        taken = _delegated(nodes)
        own = [node for index, node in enumerate(nodes) if node["op_name"] != "DELEGATE" and index not in taken]
        counts = {}  # type: Dict[str, int]
        if taken:
            counts["xnnpack"] = len(taken)
        elif self._demanded and self._provider == "xnnpack":
            raise DeviceError(
                "xnnpack was asked for but not used",
                where="operators: %s" % ", ".join(sorted({node["op_name"] for node in own})),
                fix="this runtime's XNNPACK takes none of these operators; without --provider the CPU is used openly",
                code="provider-not-used",
            )
        for node in own:
            key = "cpu:" + node["op_name"]
            counts[key] = counts.get(key, 0) + 1
        return counts

    def profiled(self, inputs: Dict[str, Any]) -> int:
        """Nanoseconds of an inference in which LiteRT times its operators, by its own clock; needs `layer_times` at load."""
        model: Any = self._profiled
        if not self._events:
            model.feed(inputs)
        model.run()
        events, whole = model.events()
        self._events.append(events)
        return int(whole) * 1000

    def layers(self) -> List[Dict[str, Any]]:
        """The operators in the order they ran, as fields of `agent.contract.protocol.Layer`, over all `profiled` inferences
        but the first; `original` are the tensors that they make.
        """
        details = self._interpreter._get_ops_details()  # noqa: SLF001 - see `placement`
        names = {one["index"]: one["name"] for one in self._interpreter.get_tensor_details()}
        nodes = [
            litert_layers.Node(one["op_name"], [names[int(out)] for out in one["outputs"] if int(out) in names])
            for one in details
        ]
        taken = [sorted(part) for part in _by_delegate(details)]
        return litert_layers.layers(self._events[1:] or self._events, nodes, taken)

    def close(self) -> None:
        """Frees the interpreter."""
        if self._profiled is not None:
            self._profiled.close()
            self._profiled = None
        self._interpreter = self._set = self._get = self._invoke = None


def _delegated(nodes: List[Dict[str, Any]]) -> Set[int]:
    """The operators inside the delegates."""
    return set().union(*_by_delegate(nodes))


def _by_delegate(nodes: List[Dict[str, Any]]) -> List[Set[int]]:
    """The operators inside each delegate: those met on the way back from its outputs to its inputs."""
    made_by = {
        int(out): index for index, node in enumerate(nodes) if node["op_name"] != "DELEGATE" for out in node["outputs"]
    }
    parts = []  # type: List[Set[int]]
    for node in nodes:
        if node["op_name"] != "DELEGATE":
            continue
        taken = set()  # type: Set[int]
        parts.append(taken)
        edge = {int(index) for index in node["inputs"]}
        waiting = [int(index) for index in node["outputs"]]
        while waiting:
            index = made_by.get(waiting.pop())
            if index is None or index in taken:
                continue
            taken.add(index)
            waiting += [int(tensor) for tensor in nodes[index]["inputs"] if int(tensor) not in edge]
    return parts


def _import() -> Any:
    failures = []
    for name in MODULES:
        try:
            return importlib.import_module(name)
        except ImportError as error:
            failures.append("%s: %s" % (name.partition(".")[0], error))
    raise DeviceError(
        "no TFLite runtime imports: %s" % "; ".join(failures),
        fix="on the device: pip install ai-edge-litert (on old systems: pip install tflite-runtime 'numpy<2')",
        code="no-runtime",
    )


def _check_options(options: Dict[str, Any]) -> None:
    for key, value in options.items():
        if key not in _OPTIONS:
            raise ContractError("unknown session option %r" % key, expected="one of: %s" % ", ".join(_OPTIONS))
        if value not in _RESOLVERS:
            raise ContractError("unknown resolver %r" % value, expected="one of: %s" % ", ".join(_RESOLVERS))


def _numpy_major() -> int:
    from importlib import metadata

    return int(metadata.version("numpy").partition(".")[0])


def _load_failed(path: str, version: str, module: str, error: BaseException) -> DeviceError:
    told: Optional[str] = str(error)
    fix = "build for this runtime version, or install a newer ai-edge-litert on the device"
    # With numpy 2 it imports, then fails here with words that do not name numpy.
    if "_ARRAY_API" in (told or "") or (module == "tflite_runtime" and _numpy_major() >= 2):  # noqa: PLR2004
        fix = "tflite-runtime was compiled for numpy 1: pip install 'numpy<2' in its environment, or use ai-edge-litert"
    return DeviceError(
        "%s %s does not load the model: %s" % (module, version, (told or repr(error))[:600]),
        where=os.path.basename(path),
        fix=fix,
        code="load-failed",
    )
