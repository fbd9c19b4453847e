"""Activation ranges for ExecuTorch: what every operator of the float program gives, measured once for all recipes.

torchao's HistogramObserver searches its bins anew for every sample and every candidate: on MobileNetV2 that takes longer than
the network.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError
from packager import torch_models
from packager.compress.quantize.clipping import clipped

if TYPE_CHECKING:
    import numpy as np

    from packager.recipe import Recipe

_BINS = 4096  # half of them for each sign
_LEAST_REACH = 2.0**-20
_MOST = 3e38  # what lies beyond pads a maximum, and is no activation


class Histogram:
    """Counts over [-reach, reach]. The reach is a power of two and doubles for a value beyond it: so two histograms of any
    reach add up without a bin being split.
    """

    def __init__(self) -> None:
        import numpy as np

        self.low, self.high, self.reach, self.zeros = 0.0, 0.0, _LEAST_REACH, 0
        self.counts: np.ndarray[Any, Any] = np.zeros(_BINS)

    def add(self, values: Any) -> None:
        """Counts a float tensor's values. Those beyond float32's range, and NaN, count for nothing."""
        torch = torch_models.need_torch()
        values = values.detach().float().flatten()
        if values.numel() and not bool((values.abs() < _MOST).all()):  # also where there is a NaN
            values = values[values.abs() < _MOST]
        if not values.numel():
            return
        low, high = (float(one) for one in values.aminmax())
        self._widen(max(-low, high))
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.zeros += int(values.numel() - torch.count_nonzero(values))
        self.counts += torch.histc(values, _BINS, -self.reach, self.reach).double().numpy()

    def merge(self, other: Histogram) -> None:
        """Counts what another one has counted, too."""
        self._widen(other.reach)
        narrow = Histogram()
        narrow.counts, narrow.reach = other.counts, other.reach
        narrow._widen(self.reach)
        self.counts = self.counts + narrow.counts
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.zeros += other.zeros

    def _widen(self, wanted: float) -> None:
        import numpy as np

        while self.reach < wanted:
            inner = self.counts.reshape(-1, 2).sum(1)
            self.counts = np.zeros(_BINS)
            self.counts[_BINS // 4 : 3 * _BINS // 4] = inner
            self.reach *= 2

    def ends(self, recipe: Recipe) -> tuple[float, float]:
        """The range by the recipe's method, 0 within it."""
        if recipe.method == "minmax" or self.low == self.high:
            return self.low, self.high
        width = 2 * self.reach / _BINS
        first = math.floor((self.low + self.reach) / width)
        last = min(math.ceil((self.high + self.reach) / width), _BINS)
        low, high = first * width - self.reach, last * width - self.reach
        hist = self.counts[first:last].copy()
        if recipe.method == "mse":
            hist[min(_BINS // 2 - first, len(hist) - 1)] -= self.zeros  # zero is exact in any range
        low, high = clipped(hist, low, high, recipe, symmetric=False)
        return max(low, self.low), min(high, self.high)


@functools.cache
def known_range() -> Any:
    """The observer's class: it is told what its operators give (`take`) in the place of seeing it."""
    from torchao.quantization.pt2e.observer import UniformQuantizationObserverBase

    torch = torch_models.need_torch()

    class KnownRange(UniformQuantizationObserverBase):  # type: ignore[misc] # torchao is not seen by the type checker
        def __init__(self, recipe: Recipe, **settings: Any) -> None:
            super().__init__(**settings)
            self.recipe, self.seen = recipe, Histogram()

        def take(self, histogram: Histogram) -> None:
            self.seen.merge(histogram)

        def forward(self, values: Any) -> Any:
            return values

        def calculate_qparams(self) -> Any:
            low, high = self.seen.ends(self.recipe)
            return self._calculate_qparams(torch.tensor(low), torch.tensor(high))

        def extra_repr(self) -> str:
            return f"low={self.seen.low}, high={self.seen.high}"

    return KnownRange


def watched(prepared: Any) -> dict[str, list[Any]]:
    """The observers of known ranges in a prepared graph, by the node that each watches."""
    modules, kind = dict(prepared.named_modules(remove_duplicate=False)), known_range()
    found: dict[str, list[Any]] = {}
    for node in prepared.graph.nodes:
        if node.op == "call_module" and isinstance(modules[node.target], kind):
            found.setdefault(node.args[0].name, []).append(modules[node.target])
    return found


def fill(prepared: Any, ranges: Mapping[str, Histogram], feed: Sequence[Any]) -> None:
    """Tells the observers of a prepared graph what their operators give, in place; the weights' see them, by a run on one
    sample. Raises ConvertError for an operator that was not measured.
    """
    torch = torch_models.need_torch()
    for name, observers in watched(prepared).items():
        if name not in ranges:
            raise ConvertError(f"no range was measured for {name}", code="quantiser-failed")
        for one in observers:
            one.take(ranges[name])
    with torch.no_grad():
        prepared(*feed)


def measure(prepared: Any, feeds: Iterable[Sequence[Any]]) -> dict[str, Histogram]:
    """What every float operator of a prepared graph gives, observed in it or not, over all samples; by the node's name."""
    torch = torch_models.need_torch()
    found: dict[str, Histogram] = {}
    inside = set(watched(prepared))

    base: Any = torch.fx.Interpreter

    class Watching(base):  # type: ignore[misc] # the base is known at run time only
        def run_node(self, n: Any) -> Any:
            result = super().run_node(n)
            kept = n.op in ("placeholder", "call_function") or n.name in inside
            if kept and isinstance(result, torch.Tensor) and result.is_floating_point():
                found.setdefault(n.name, Histogram()).add(result)
            return result

    watching = Watching(prepared)
    with torch.no_grad():
        for feed in feeds:
            watching.run(*[one.clone() for one in feed])
    return found
