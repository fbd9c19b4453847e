"""The golden check: the device's outputs against the original's, output by output, the worst sample counting."""

from __future__ import annotations

import math
from typing import Any, Dict, List, Optional, Sequence

from agent.contract.manifest import Tolerance
from agent.contract.report import OutputParity, Parity

_EXACT = "iub"  # numpy's kinds of integers and booleans: labels, indices, masks; one off is wrong


def compare(expected: Dict[str, Any], found: Sequence[Dict[str, Any]], tolerance: Tolerance) -> Parity:
    """`expected` maps a name to an array (samples first); `found` holds one dict of arrays per sample."""
    outputs = [_compare_output(name, expected[name], [row.get(name) for row in found], tolerance) for name in expected]
    verdict = "pass" if all(output.verdict == "pass" for output in outputs) else "fail"
    return Parity(verdict=verdict, samples=len(found), outputs=outputs)


def _compare_output(name: str, expected: Any, rows: List[Any], tolerance: Tolerance) -> OutputParity:
    cosines: List[Optional[float]] = []
    if len(rows) != len(expected):
        note = "%d samples came back, expected %d" % (len(rows), len(expected))
        return OutputParity(name, None, None, None, "fail", note)
    furthest, agree, good = 0.0, [], True
    for want, got in zip(expected, rows):
        fault = _misfit(want, got)
        if fault:
            return OutputParity(name, None, None, None, "fail", fault)
        if not want.size:
            continue
        finite = _finite(want)
        wide_want, wide_got = want.astype("float64").ravel()[finite], got.astype("float64").ravel()[finite]
        off = float(abs(wide_want - wide_got).max()) if wide_want.size else 0.0
        furthest = max(furthest, off)
        cosine = None if want.dtype.kind in _EXACT else _cosine(wide_want, wide_got)
        cosines.append(cosine)
        if want.dtype.kind in _EXACT:
            good = good and bool((want == got).all())
        else:
            good = good and (off <= tolerance.max_abs or _alike(wide_want, wide_got, cosine, tolerance.min_cosine))
        if wide_want.size > 1:
            agree.append(int(wide_want.argmax()) == int(wide_got.argmax()))
    known = [cosine for cosine in cosines if cosine is not None]
    return OutputParity(
        name=name,
        cosine=min(known) if known else None,
        max_abs=furthest,
        argmax_agreement=sum(agree) / len(agree) if agree else None,
        verdict="pass" if good else "fail",
        note="" if len(known) == len(cosines) else "cosine is undefined (integers, or all zero)",
    )


def _alike(want: Any, got: Any, cosine: Optional[float], min_cosine: float) -> bool:
    """Direction and size: a cosine alone would pass an output that is wrong by a constant factor.

    Vectors of one length whose cosine is c are sqrt(2 (1 - c)) of that length apart: that much is allowed, and no more.
    """
    if cosine is None or cosine < min_cosine:
        return False
    scale = max(float(abs(want).max()), float(abs(got).max()))
    apart, length = (want - got) / scale, want / scale
    return float(apart @ apart) <= 2 * (1 - min_cosine) * float(length @ length)


def _misfit(want: Any, got: Any) -> str:
    """Why the two cannot be compared at all, or nothing."""
    if got is None:
        return "no output of this name"
    if tuple(got.shape) != tuple(want.shape):
        return "shape %s, expected %s" % (list(got.shape), list(want.shape))
    if want.size and not (_finite(want) == _finite(got)).all():
        return "NaN or infinity where the original has numbers, or the other way round"
    return ""


def _finite(array: Any) -> Any:
    # The arrays' own operators do, so that this module needs no numpy: NaN compares false.
    return abs(array.astype("float64").ravel()) < math.inf


def _cosine(left: Any, right: Any) -> Optional[float]:
    # Scaled first, so that large values do not overflow when squared.
    if not left.size:
        return None
    scale_left, scale_right = float(abs(left).max()), float(abs(right).max())
    if not (scale_left and scale_right):
        return None
    left, right = left / scale_left, right / scale_right
    value = float(left @ right / math.sqrt(float(left @ left) * float(right @ right)))
    return max(-1.0, min(1.0, value))
