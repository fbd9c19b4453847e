"""Cross-layer equalisation (Nagel et al. 2019, arXiv:1906.04721): the layers that make channels and those that read them share
their weights' ranges, residual sums included.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from packager.compress.onnx_channels import Graph, by_channel, by_output, rescale, scalable
from packager.compress.onnx_values import tensor_values

if TYPE_CHECKING:
    from packager.calibration import CalibrationData

SWEEPS = 12
_LEAST = 1e-8


def equalize(model: Any, calibration: CalibrationData) -> int:
    """Scales channels so that the weights that make them and those that read them have the same range in each; how many
    tensors, or groups of tensors that are added up, had theirs scaled. Shapes are read off a calibration sample.

    Exact across ReLU. ReLU6 (Clip from 0) does not scale: it becomes ReLU, which changes the function, so the result must be
    measured.
    """
    import numpy as np

    first = next(tensor_values(model, calibration.feeds(1)))
    graph = Graph(model, {name: value.shape for name, value in first.items() if hasattr(value, "shape")})
    groups = [one for one in scalable(graph) if all(side.layer for side in (*one.makers, *one.readers))]
    for _ in range(SWEEPS):
        for one in groups:
            before = np.max([abs(by_output(graph, layer)).max(axis=1) for layer in one.makers], axis=0)
            after = np.max([abs(by_channel(graph, layer)).max(axis=(1, 2)) for layer in one.readers], axis=0)
            rescale(graph, one, shared_range(before, after))
    for clip in (clip for one in groups for clip in one.clips):
        clip.op_type = "Relu"
        del clip.input[1:]
    return len(groups)


def shared_range(wide: Any, next_wide: Any) -> Any:
    """What the first layer's channels are divided and the second's multiplied by, so that both have the same range in each;
    1 for a channel that either leaves unused. Both are the weights' largest absolute values by channel.
    """
    import numpy as np

    alive = (wide > _LEAST) & (next_wide > _LEAST)
    scale = np.where(alive, np.sqrt(wide / np.maximum(next_wide, _LEAST)), 1.0)
    return np.maximum(scale, _LEAST)
