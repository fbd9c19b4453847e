"""Cross-layer equalisation (Nagel et al. 2019, arXiv:1906.04721) of a float TFLite graph, residual sums included."""

from __future__ import annotations

from typing import Any

from packager.compress.equalize import SWEEPS, shared_range
from packager.compress.tflite_channels import by_channel, rescale, scalable, unclip


def equalize_tflite(model: Any) -> int:
    """Scales channels so that the weights that make them and those that read them have the same range in each; how many
    tensors, or groups of tensors that are added up, had theirs scaled.

    Exact across ReLU. ReLU6 does not scale: it becomes ReLU, which changes the function, so the result must be measured.
    """
    import numpy as np

    groups = scalable(model)
    for _ in range(SWEEPS):
        for one in groups:
            before, after = (
                np.max([abs(by_channel(model, layer, axis)).max(axis=1) for layer, axis in side], axis=0)
                for side in (
                    [(layer, layer.out_axis) for layer in one.makers],
                    [(layer, layer.in_axis) for layer in one.readers],
                )
            )
            rescale(model, one, shared_range(before, after))
    for one in groups:
        unclip(one)
    return len(groups)
