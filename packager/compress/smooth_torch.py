"""Smoothed activations of an exported graph, between two convolutions: channels that are wide beside the others are narrowed
by the first, and the second takes the width over. No operator more, and the same function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from packager import torch_models
from packager.compress.channel_scales import Reader, Seen, best_scale
from packager.compress.equalize_torch import convolution_pairs, rescale_pairs

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_SAMPLES = 32


def smooth(graph: Any, feeds: Sequence[Sequence[Any]]) -> int:
    """Scales channels, in place, so that rounding adds the least noise to what the second of two convolutions gives; between
    how many pairs. Across nothing or a ReLU; for weights with a scale per channel.
    """
    aten = torch_models.need_torch().ops.aten
    exact = (aten.relu.default, aten.relu_.default)
    pairs = [pair for pair in convolution_pairs(graph) if pair[2] is None or pair[2].target in exact]
    seen = _seen(graph, {(between or first).name for first, _, between in pairs}, feeds)
    done = 0

    def scale(before: Any, after: Any, name: str) -> Any:
        nonlocal done
        found = best_scale([seen[name]], [_reader(before, after, seen[name])])
        done += found is not None
        return found

    rescale_pairs(graph, pairs, scale, sweeps=1)
    return done


def _reader(before: Any, after: Any, seen: Seen) -> Reader:
    """The second convolution's weights (out, in, window), or (channels, 1, window) of a depthwise one."""
    import numpy as np

    own = after.shape[1] == 1 and after.shape[0] == before.shape[0]
    rows = after.reshape(len(after), 1, -1) if own else np.moveaxis(after, 1, 0).reshape(after.shape[1], len(after), -1)
    return Reader(rows, seen.power, own)


def _seen(graph: Any, names: set[str], feeds: Sequence[Sequence[Any]]) -> dict[str, Seen]:
    import numpy as np

    torch = torch_models.need_torch()
    found: dict[str, Seen] = {}
    base: Any = torch.fx.Interpreter

    class Seeing(base):  # type: ignore[misc] # the base is known at run time only
        def run_node(self, n: Any) -> Any:
            value = super().run_node(n)
            if n.name in names:
                rows = value.transpose(0, 1).flatten(1).double()
                low, high, power = (one.numpy() for one in (rows.amin(1), rows.amax(1), (rows**2).mean(1)))
                one = found.setdefault(n.name, Seen(low, high, np.zeros_like(power)))
                one.low, one.high, one.power = np.minimum(one.low, low), np.maximum(one.high, high), one.power + power
            return value

    few = feeds[:_MOST_SAMPLES] if names else []
    running = Seeing(graph)
    with torch.no_grad():
        for feed in few:
            running.run(*[one.clone() for one in feed])
    for one in found.values():
        one.power /= len(few)
    return found
