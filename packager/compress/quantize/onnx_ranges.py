"""Activation ranges from histograms: for each tensor the clipping with the least squared error, entropy, or a percentile.

onnxruntime's own calibrators for these hold every activation of every sample in memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from packager.compress.quantize.clipping import best_clip, entropy_clip, percentile_clip
from packager.onnx_model import load_model, need_onnxruntime

if TYPE_CHECKING:
    import numpy as np

    from packager.calibration import CalibrationData
    from packager.recipe import Recipe

    Array = np.ndarray[Any, Any]

_BINS = 2048
_MOST_SAMPLES = 64


def clip_ranges(
    prepared: Path, minmax: Path, result: Path, calibration: CalibrationData, recipe: Recipe, *, symmetric: bool
) -> None:
    """Reads onnxruntime's file of least and greatest values (`minmax`), writes one of the same form with both ends drawn in
    by the recipe's method: mse, percentile or entropy. Histograms are kept beside `minmax`.
    """
    import numpy as np
    from onnxruntime.quantization import load_tensors_data, save_tensors_data

    data = load_tensors_data(minmax)
    edges = {name: (float(np.min(one.lowest)), float(np.max(one.highest))) for name, one in data.items()}
    edges = {name: (min(low, 0.0), max(high, 0.0)) for name, (low, high) in edges.items()}
    kept = minmax.with_suffix(".npz")
    if kept.exists():
        with np.load(kept) as file:
            counts = {name: file[name] for name in file.files}
    else:
        counts = _histograms(prepared, {name: pair for name, pair in edges.items() if pair[0] < pair[1]}, calibration)
        np.savez(kept, **counts)  # type: ignore[arg-type] # names of tensors
    for name, hist in counts.items():
        if recipe.method == "percentile":
            low, high = percentile_clip(hist, *edges[name], recipe.percentile)
        else:
            clip = entropy_clip if recipe.method == "entropy" else best_clip
            low, high = clip(hist, *edges[name], symmetric=symmetric)
        one = data[name]
        kind = np.asarray(one.lowest).dtype
        one.lowest, one.highest = np.array(low, kind), np.array(high, kind)
    save_tensors_data(data, result)


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
