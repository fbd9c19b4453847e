"""Observers for PyTorch's static INT8: ranges by minimum and maximum, by least error, by percentile; and, where a ReLU6 was
absorbed into the layer before it, capped, so that quantisation itself saturates where the ReLU6 would clamp.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from packager.recipe import Recipe


def qconfig(recipe: Recipe, engine: str, *, cap: float | None = None, per_channel: bool | None = None) -> Any:
    """The QConfig of a recipe for an engine. `cap`: the value at which the activation saturates.

    x86 gives 7 bits to activations (reduce_range): without VNNI its products saturate in 16 bits. qnnpack takes all 8.
    """
    import torch
    from torch.ao.quantization import MinMaxObserver, PerChannelMinMaxObserver, QConfig

    wide = recipe.per_channel if per_channel is None else per_channel
    kind = _activation(recipe.method, recipe.percentile, cap)
    activation = kind.with_args(dtype=torch.quint8, reduce_range=engine == "x86")
    weight = (
        PerChannelMinMaxObserver.with_args(dtype=torch.qint8, qscheme=torch.per_channel_symmetric)
        if wide
        else MinMaxObserver.with_args(dtype=torch.qint8, qscheme=torch.per_tensor_symmetric)
    )
    return QConfig(activation=activation, weight=weight)


@functools.cache
def _activation(method: str, percentile: float, cap: float | None) -> Any:
    from torch.ao.quantization import HistogramObserver, MinMaxObserver

    base: Any = {"minmax": MinMaxObserver, "entropy": HistogramObserver, "percentile": None}[method]
    if base is None:
        base = _percentile_observer(percentile)
    return base if cap is None else _capped(base, cap)


def _percentile_observer(percentile: float) -> Any:
    from torch.ao.quantization import HistogramObserver

    class PercentileObserver(HistogramObserver):  # type: ignore[misc] # torch is not seen by the type checker
        """Cuts the same share off both ends of the histogram."""

        def _non_linear_param_search(self) -> Any:
            counts = self.histogram.cumsum(0) / self.histogram.sum()
            tail = 1 - percentile / 100
            low = int((counts <= tail).sum())
            high = int((counts < 1 - tail).sum()) + 1
            step = (self.max_val - self.min_val) / self.bins
            return self.min_val + step * low, self.min_val + step * min(high, self.bins)

    return PercentileObserver


def _capped(base: Any, cap: float) -> Any:
    class CappedObserver(base):  # type: ignore[misc] # as above
        """Sees, and passes on, what a clamp at `cap` would; its range never reaches above it."""

        def forward(self, x_orig: Any) -> Any:
            return super().forward(x_orig.clamp(max=cap))

        def _calculate_qparams(self, min_val: Any, max_val: Any) -> Any:
            return super()._calculate_qparams(min_val, max_val.clamp(max=cap))

    return CappedObserver


@functools.cache
def _reduced(base: Any) -> Any:
    class ReducedObserver(base):  # type: ignore[misc] # as above
        """Gives the range seen 127 of 255 steps, and what is above it the rest: as reduce_range does, and the kernels, which
        clamp at 255. torch's own training clamps at 127 instead, which no kernel does.
        """

        def _calculate_qparams(self, min_val: Any, max_val: Any) -> Any:
            low, high = min_val.clamp(max=0), max_val.clamp(min=0)
            return super()._calculate_qparams(low, low + (high - low) * (255 / 127))

    return ReducedObserver


def qat_qconfig(engine: str, *, per_channel: bool, cap: float | None = None) -> Any:
    """The QConfig of quantisation-aware training: fake quantisation with moving averages. `cap` as in `qconfig`."""
    import torch
    from torch.ao.quantization import (
        FakeQuantize,
        MovingAverageMinMaxObserver,
        MovingAveragePerChannelMinMaxObserver,
        QConfig,
    )

    base: Any = MovingAverageMinMaxObserver
    if engine == "x86":  # without VNNI: 7 bits for activations, as its products saturate in 16
        base = _reduced(base)
    if cap is not None:
        base = _capped(base, cap)
    activation = FakeQuantize.with_args(
        observer=base, quant_min=0, quant_max=255, dtype=torch.quint8, qscheme=torch.per_tensor_affine
    )
    kind, scheme = (
        (MovingAveragePerChannelMinMaxObserver, torch.per_channel_symmetric)
        if per_channel
        else (MovingAverageMinMaxObserver, torch.per_tensor_symmetric)
    )
    weight = FakeQuantize.with_args(observer=kind, quant_min=-128, quant_max=127, dtype=torch.qint8, qscheme=scheme)
    return QConfig(activation=activation, weight=weight)
