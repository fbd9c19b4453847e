"""The lowered model on the host beside the original: what may be written, and by how much a device may be off."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from agent.contract import parity
from agent.contract.errors import BudgetError, ConvertError
from agent.contract.finding import WARNING, Finding
from agent.contract.manifest import Tolerance

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np

    from agent.contract.report import Parity
    from packager.bundle.golden import GoldenVectors
    from packager.protocols import Terms

_CONVERTED = Tolerance(min_cosine=0.999, max_abs=1e-3)  # wrong conversions seen were at 0.96 and below
_WIDEST = 0.9  # of 1 - cosine: beyond that two outputs have nothing to do with each other


@dataclasses.dataclass(frozen=True)
class Checked:
    """The terms, their tolerance widened where a quantised model is further off and was accepted; what there is to tell."""

    terms: Terms
    findings: tuple[Finding, ...]


def host_check(
    rows: Iterable[dict[str, np.ndarray[Any, Any]]], golden: GoldenVectors, terms: Terms, precision: str, accepted: bool
) -> Checked:
    """`rows`: the lowered model's outputs, one golden sample each. `accepted`: the user's own metric holds, or the user takes
    the loss; the device is then held to what the host saw.

    Raises ConvertError where floats disagree, BudgetError where a runtime with kernels that are known to be wrong is far off.
    """
    found = list(rows)
    verdict = parity.compare(dict(golden.outputs), found, terms.tolerance)
    if verdict.verdict == "pass":
        return Checked(terms, ())
    told, least = _told(verdict), f"a cosine of at least {terms.tolerance.min_cosine} on the golden inputs"
    if precision in ("fp32", "fp16"):
        narrow = "float16 holds 6e-8 to 65504 only: take --recipe fp32 or int8"
        raise ConvertError(
            f"the converted model does not compute what the original computes: {told}",
            expected=least,
            fix=(narrow if precision == "fp16" else "report this model")
            + "; --no-check writes the bundle all the same",
            code="parity",
        )
    text = f"on the golden inputs the quantised model is far from the original: {told}"
    advice = "more calibration data, another method (--recipe int8-percentile), or --recipe fp16"
    if accepted:
        return _accepted(found, golden, terms, text)
    if terms.refuse_far:
        raise BudgetError(
            text,
            expected=least,
            fix="--runtime executorch, whose kernels keep more; or --eval DATA.npz, to be judged by your own metric; "
            "--allow-drop writes it all the same",
            code="parity",
        )
    advice += (
        "; with --eval DATA.npz the build looks for one that keeps your metric. A device will not activate this bundle"
    )
    return Checked(terms, (Finding("host-parity", WARNING, text, advice),))


def conversion_check(rows: Iterable[dict[str, np.ndarray[Any, Any]]], golden: GoldenVectors) -> None:
    """`rows`: the outputs of the converted model, float still, one golden sample each. Raises ConvertError where they are not
    the original's.
    """
    verdict = parity.compare(dict(golden.outputs), list(rows), _CONVERTED)
    if verdict.verdict != "pass":
        raise ConvertError(
            f"the converted model does not compute what the original computes, before anything is quantised: {_told(verdict)}",
            expected=f"a cosine of at least {_CONVERTED.min_cosine} on the golden inputs",
            fix="another runtime (--runtime), or report this model; --no-check goes on all the same",
            code="parity",
        )


def _accepted(found: list[Any], golden: GoldenVectors, terms: Terms, text: str) -> Checked:
    """A device computes as the host did, not as the original: twice as far off as the host was is still the same model."""
    wide = _widened(dict(golden.outputs), found, terms.tolerance)
    if wide is None:
        advice = "too far for rounding to be the cause, or whole numbers or NaN differ: a device will not activate this bundle"
        return Checked(terms, (Finding("host-parity", WARNING, text, advice),))
    advice = (
        f"it was accepted: the golden check on the device asks for a cosine of {wide.min_cosine:.3g} with the original"
    )
    return Checked(dataclasses.replace(terms, tolerance=wide), (Finding("host-parity", WARNING, text, advice),))


def _widened(outputs: dict[str, Any], found: list[Any], tolerance: Tolerance) -> Tolerance | None:
    """Twice the least that lets the host's own outputs pass (in steps of two); None where none does."""
    spare = 1 - tolerance.min_cosine
    while spare < _WIDEST:
        spare = min(2 * spare, _WIDEST)
        wide = dataclasses.replace(tolerance, min_cosine=1 - spare)
        if parity.compare(outputs, found, wide).verdict == "pass":
            return dataclasses.replace(tolerance, min_cosine=1 - min(2 * spare, _WIDEST))
    return None


def _told(verdict: Parity) -> str:
    bad = [output for output in verdict.outputs if output.verdict != "pass"]
    return "; ".join(f"{output.name}: {output.note or _numbers(output)}" for output in bad)


def _numbers(output: Any) -> str:
    cosine = "undefined" if output.cosine is None else f"{output.cosine:.4f}"
    return f"cosine {cosine}, largest difference {output.max_abs:.4g}"
