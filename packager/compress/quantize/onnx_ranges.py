"""Activation ranges that lose least: for each tensor the clipping with the smallest mean squared error of 8-bit steps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from packager.onnx_model import load_model, need_onnxruntime

if TYPE_CHECKING:
    import numpy as np

    from packager.calibration import CalibrationData

    Array = np.ndarray[Any, Any]

_BINS = 2048
_LEVELS = 255
_KEPT = tuple(1 - 0.05 * step for step in range(16))  # of each side's length: 1 down to 0.25
_MOST_SAMPLES = 64


def clip_ranges(prepared: Path, minmax: Path, result: Path, calibration: CalibrationData, *, symmetric: bool) -> None:
    """Reads onnxruntime's file of least and greatest values (`minmax`), writes one of the same form with both ends drawn in
    to where rounding and clipping together cost least.
    """
    import numpy as np
    from onnxruntime.quantization import load_tensors_data, save_tensors_data

    data = load_tensors_data(minmax)
    edges = {name: (float(np.min(one.lowest)), float(np.max(one.highest))) for name, one in data.items()}
    edges = {name: (min(low, 0.0), max(high, 0.0)) for name, (low, high) in edges.items()}
    counts = _histograms(prepared, {name: pair for name, pair in edges.items() if pair[0] < pair[1]}, calibration)
    for name, hist in counts.items():
        low, high = best_clip(hist, *edges[name], symmetric=symmetric)
        one = data[name]
        kind = np.asarray(one.lowest).dtype
        one.lowest, one.highest = np.array(low, kind), np.array(high, kind)
    save_tensors_data(data, result)


def best_clip(hist: Array, low: float, high: float, *, symmetric: bool) -> tuple[float, float]:
    """The ends, 0 between them, at which `hist` (of equal bins from low to high) has its smallest squared error."""
    import numpy as np

    width = (high - low) / len(hist)
    middles = low + width * (np.arange(len(hist)) + 0.5)
    best, found = np.inf, (low, high)
    for left in _KEPT if low < 0 else (1.0,):
        for right in _KEPT if high > 0 else (1.0,):
            ends = (low * left, high * right)
            reach = 2 * max(-ends[0], ends[1]) if symmetric else ends[1] - ends[0]
            step = reach / _LEVELS
            beyond = middles - np.clip(middles, *ends)
            # Uniform rounding has the variance step^2 / 12 (Bennett 1948).
            error = float((hist * beyond**2).sum() + hist.sum() * step * step / 12)
            if error < best:
                best, found = error, ends
    return found


def _histograms(
    prepared: Path, edges: dict[str, tuple[float, float]], calibration: CalibrationData
) -> dict[str, Array]:
    import numpy as np
    import onnx

    onnxruntime = need_onnxruntime()
    model = load_model(prepared)
    given = {value.name for value in (*model.graph.output, *model.graph.input)}
    made = {name for node in model.graph.node for name in node.output}
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in edges
        if name in made and name not in given
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_outputs() if entry.name in edges]
    counts = {name: np.zeros(_BINS) for name in edges}
    for feed in calibration.feeds(_MOST_SAMPLES):
        values = dict(zip(names, session.run(names, feed), strict=True))
        values |= {name: array for name, array in feed.items() if name in edges}
        for name, array in values.items():
            counts[name] += np.histogram(array, _BINS, edges[name])[0]
    return counts
