"""TensorFlow Lite's fixed-point multipliers, as its kernels prepare them (kernels/internal/quantization_util.cc)."""

from __future__ import annotations

import math

_SOFTMAX_BITS = 5


def half_away(value: float) -> int:
    """C's round(): halves go away from zero."""
    return math.floor(value + 0.5) if value >= 0 else math.ceil(value - 0.5)


def quantize_multiplier(real: float) -> tuple[int, int]:
    """A multiplier and a shift with real = multiplier / 2**31 * 2**shift."""
    if not real:
        return 0, 0
    fraction, shift = math.frexp(real)
    fixed = half_away(fraction * (1 << 31))
    if fixed == 1 << 31:
        fixed, shift = fixed // 2, shift + 1
    if shift < -31:  # noqa: PLR2004 - below what 32 bits hold: nothing is left
        return 0, 0
    return fixed, shift


def mean_multiplier(real: float, count: int) -> tuple[int, int]:
    """`real` divided by `count`, the way QuantizedMeanOrSum does it in integers."""
    multiplier, shift = quantize_multiplier(real)
    more = min(count.bit_length() - 1, 32, 31 + shift)
    return (multiplier << more) // count, shift - more


def softmax_scale(beta: float, scale: float) -> tuple[int, int, int]:
    """Multiplier, left shift and the least difference to the maximum that counts."""
    real = min(beta * scale * (1 << (31 - _SOFTMAX_BITS)), (1 << 31) - 1.0)
    multiplier, shift = quantize_multiplier(real)
    radius = ((1 << _SOFTMAX_BITS) - 1) * (1 << (31 - _SOFTMAX_BITS)) / (1 << shift)
    return multiplier, shift, -math.floor(radius)
