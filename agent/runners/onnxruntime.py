"""ONNX Runtime: sessions with the bundle's options, the provider that was asked for or none, placement per node."""

from __future__ import annotations

import json
import os
from typing import Any, Callable, Dict, List, Optional, Tuple

from agent.contract import statistics
from agent.contract.errors import ContractError, DeviceError, nearest

DISTRIBUTIONS = ["onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-qnn"]
PACKAGES = ["onnxruntime"]

_SHORT = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
    "acl": "ACLExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "qnn": "QNNExecutionProvider",
}
_LEVELS = {
    "disable": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
_KERNEL = "_kernel_time"
# What a conversion adds around the model's own work: layout changes, quantising and back, copies between devices.
_OVERHEAD = {
    "Cast",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "MemcpyFromHost",
    "MemcpyToHost",
    "Pad",
    "QuantizeLinear",
    "ReorderInput",
    "ReorderOutput",
    "Transpose",
}
_OPTIONS = ("graph_optimization_level", "disabled_optimizers", "config")


class Runner:
    """A model in an InferenceSession."""

    name = "onnxruntime"

    def __init__(self) -> None:
        self._session: Any = None
        self._names: List[str] = []
        self._provider = ""
        self._profile = ""
        self._elsewhere: List[str] = []

    def load(self, path: str, options: Dict[str, Any]) -> None:
        """`options`: threads (0: the runtime's default), provider, session_options, profile (a folder, for placement).

        Raises DeviceError when the runtime is missing, the provider is not there, or the model does not load.
        """
        import onnxruntime

        onnxruntime.set_default_logger_severity(3)
        available = onnxruntime.get_available_providers()
        self._provider = provider_name(options.get("provider") or "cpu", available)
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3
        if options.get("threads"):
            settings.intra_op_num_threads = options["threads"]
        settings.inter_op_num_threads = 1
        session_options = dict(options.get("session_options") or {})
        _check_options(session_options)
        level = session_options.get("graph_optimization_level", "all")
        settings.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, _LEVELS[level])
        for key, value in session_options.get("config", {}).items():
            settings.add_session_config_entry(key, str(value))
        if options.get("profile"):
            settings.enable_profiling = True
            settings.profile_file_prefix = os.path.join(options["profile"], "placement")
        disabled = session_options.get("disabled_optimizers") or None
        try:
            self._session = onnxruntime.InferenceSession(
                path, settings, providers=chain(self._provider, available), disabled_optimizers=disabled
            )
        except Exception as error:
            # onnxruntime raises classes of its own C++ layer, without a common base below Exception.
            raise DeviceError(
                "onnxruntime %s does not load the model: %s" % (onnxruntime.__version__, _short(error)),
                where=os.path.basename(path),
                fix="build for this runtime version (the profile's `runtimes.onnxruntime.version`)",
                code="load-failed",
            ) from error
        if self._provider not in self._session.get_providers():
            raise _not_used(self._provider, self._session.get_providers())
        self._names = [entry.name for entry in self._session.get_outputs()]
        self._run = self._session.run

    def version(self) -> str:
        """The runtime's version."""
        import onnxruntime

        return str(onnxruntime.__version__)

    def provider(self) -> str:
        """The execution provider that was asked for, by its full name."""
        return self._provider

    def io(self) -> Dict[str, Any]:
        """Inputs and outputs as the runtime sees them: name, type and shape."""
        return {
            "inputs": [(entry.name, entry.type, entry.shape) for entry in self._session.get_inputs()],
            "outputs": [(entry.name, entry.type, entry.shape) for entry in self._session.get_outputs()],
        }

    def run(self, inputs: Dict[str, Any]) -> List[Any]:
        """The outputs, in the order of `output_names`."""
        return self._run(self._names, inputs)  # type: ignore[no-any-return]

    def timed(self) -> Tuple[Callable[[List[str], Dict[str, Any]], List[Any]], List[str]]:
        """What the sampler calls, and with which first argument: a frame of ours more is 1 % of 25 microseconds."""
        return self._session.run, self._names

    def output_names(self) -> List[str]:
        """The names that `run`'s values belong to."""
        return self._names

    def placement(self) -> Dict[str, int]:
        """How many nodes each provider executed; needs `profile` at load and at least one run. Ends the profiling."""
        counts, self._elsewhere = placed(self._events(), self._provider)
        if self._provider not in counts and self._provider != _SHORT["cpu"]:
            raise _not_used(self._provider, sorted(counts))
        return counts

    def elsewhere(self) -> List[str]:
        """The nodes that another provider than the one asked for executed; known after `placement`."""
        return self._elsewhere

    def layers(self) -> List[Dict[str, Any]]:
        """The nodes in the order they ran, as fields of `agent.contract.protocol.Layer`; the first inference is left out.
        Needs `profile` at load; ends the profiling. onnxruntime counts whole microseconds: the mean of many is finer.
        """
        rows: Dict[str, Dict[str, Any]] = {}
        times: Dict[str, List[int]] = {}
        for event in self._events():
            name, kind = event["name"], event["args"].get("op_name", "")
            if name.endswith(_KERNEL):
                name = name[: -len(_KERNEL)]
            name = name or "%s, node %s" % (kind, event["args"].get("node_index"))
            rows.setdefault(
                name, {"name": name, "kind": kind, "provider": event["args"]["provider"], "overhead": kind in _OVERHEAD}
            )
            times.setdefault(name, []).append(event["dur"] * 1000)
        for name, taken in times.items():
            rows[name]["time_ns"] = statistics.middle(taken[1:] or taken)
        return list(rows.values())

    def _events(self) -> List[Dict[str, Any]]:
        """The profile's events of nodes, in their order; the file is deleted."""
        path = self._session.end_profiling()
        with open(path, encoding="utf-8") as file:
            events = json.load(file)
        os.unlink(path)
        return [one for one in events if one.get("cat") == "Node" and one.get("args", {}).get("provider")]

    def close(self) -> None:
        """Frees the session."""
        self._session = None


def chain(provider: str, available: List[str]) -> List[str]:
    """The providers of the session: what TensorRT does not take goes to CUDA, where that is there, before the CPU."""
    behind = _SHORT["cuda"]
    return [provider, behind] if provider == _SHORT["tensorrt"] and behind in available else [provider]


def placed(events: List[Dict[str, Any]], asked: str) -> Tuple[Dict[str, int], List[str]]:
    """Out of a profile: how many nodes each provider executed, and those that were not on `asked`, with their operator."""
    nodes: Dict[str, Tuple[str, str]] = {}
    for event in events:
        told = event.get("args", {})
        if event.get("cat") == "Node" and told.get("provider"):
            nodes[event["name"]] = (told["provider"], told.get("op_name", ""))
    counts: Dict[str, int] = {}
    for provider, _ in nodes.values():
        counts[provider] = counts.get(provider, 0) + 1
    stray = [
        "%s%s on %s" % (name[: -len("_kernel_time")] if name.endswith("_kernel_time") else name, " (%s)" % op, provider)
        for name, (provider, op) in nodes.items()
        if provider != asked
    ]
    return counts, stray


def provider_name(asked: str, available: List[str]) -> str:
    """The full name of the provider. Raises DeviceError when this onnxruntime does not have it: never falls back."""
    name = _SHORT.get(asked.lower(), asked)
    if name in available:
        return name
    near = nearest(name, available)
    raise DeviceError(
        "this onnxruntime has no provider %r%s" % (asked, " (did you mean %r?)" % near if near else ""),
        expected="one of: %s" % ", ".join(available),
        fix="install the onnxruntime build with that provider on the device, or leave --provider out",
        code="no-provider",
    )


def _not_used(asked: str, used: List[str]) -> DeviceError:
    return DeviceError(
        "%s was asked for but not used" % asked,
        where="nodes ran on: %s" % ", ".join(used),
        fix="look at the runtime's log on the device; without --provider the CPU is used openly",
        code="provider-not-used",
    )


def _check_options(options: Dict[str, Any]) -> None:
    for key in options:
        if key not in _OPTIONS:
            raise ContractError("unknown session option %r" % key, expected="one of: %s" % ", ".join(_OPTIONS))
    level = options.get("graph_optimization_level", "all")
    if level not in _LEVELS:
        raise ContractError("unknown graph_optimization_level %r" % level, expected="one of: %s" % ", ".join(_LEVELS))


def _short(error: BaseException, limit: int = 600) -> str:
    text: Optional[str] = str(error)
    return (text or repr(error))[:limit]
