"""TensorRT's own time of each layer, through its IProfiler: what an inference costs while it is profiled."""

from __future__ import annotations

from typing import Any, Dict, List

from agent.contract import statistics

_OVERHEAD = ("reformat", "shuffle", "copy", "cast", "quantize")


class LayerTimes:
    """Hears every layer of every inference. TensorRT reports them when the stream has been waited for."""

    def __init__(self, trt: Any, context: Any) -> None:
        self._taken: Dict[str, List[float]] = {}
        taken = self._taken

        def report_layer_time(_: Any, layer_name: str, ms: float) -> None:
            taken.setdefault(layer_name, []).append(ms * 1e6)

        def begin(listener: Any) -> None:
            trt.IProfiler.__init__(listener)  # pybind11 wants its own constructor called

        listener = type("Listener", (trt.IProfiler,), {"__init__": begin, "report_layer_time": report_layer_time})
        self._listener = listener()  # TensorRT keeps no reference
        context.profiler = self._listener

    def rows(self) -> List[Dict[str, Any]]:
        """The layers in the order they ran, as fields of `agent.contract.protocol.Layer`: the first inference left out."""
        found = []
        for name, times in self._taken.items():
            kind = name.partition(" ")[0].rstrip("0123456789_")
            overhead = name.lower().startswith(_OVERHEAD)
            row = {"name": name, "kind": kind, "provider": "tensorrt", "overhead": overhead}
            found.append({**row, "time_ns": statistics.middle(times[1:] or times)})
        return found
