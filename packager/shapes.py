"""Shapes as the user writes them: `image=1x3x224x224`, a free dimension by a name (`image=batchx3x224x224`).

Commas may stand for the x: `ids=batch,max_len` (a name that holds an x).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from agent.contract.errors import UsageError, unknown_name
from agent.contract.manifest import TensorSpec

Shape = tuple[int | str, ...]
_ITEM = re.compile(r"^(?:\d+|[A-Za-z_]\w*)$")


def parse_shapes(texts: Iterable[str]) -> dict[str, Shape]:
    """The shapes by input name. Raises UsageError."""
    found: dict[str, Shape] = {}
    for text in texts:
        name, equals, dims = text.rpartition("=")
        parts = dims.split("," if "," in dims else "x")
        if not equals or not name or not all(_ITEM.match(part) for part in parts):
            raise UsageError(f"not a shape: {text!r}", expected="NAME=1x3x224x224", code="bad-shape")
        shape = tuple(int(part) if part.isdigit() else part for part in parts)
        if 0 in shape:
            raise UsageError(f"a dimension of {text!r} is 0", expected="sizes of at least 1", code="bad-shape")
        found[name] = shape
    return found


def check_shapes(shapes: Mapping[str, Shape], inputs: Iterable[TensorSpec], *, may_free: bool = False) -> None:
    """Raises UsageError when a shape names no input, has another rank, or contradicts a fixed dimension.

    `may_free`: a name may stand where the model has a number (an export can leave that dimension free).
    """
    known = {spec.name: spec for spec in inputs}
    for name, shape in shapes.items():
        if name not in known:
            raise unknown_name("input", name, known, fix="--shape takes the model's own input names")
        spec = known[name]
        fits = len(shape) == len(spec.shape) and all(
            not isinstance(want, int) or have == want or (may_free and isinstance(have, str))
            for have, want in zip(shape, spec.shape, strict=True)
        )
        if not fits:
            raise UsageError(
                f"--shape {name}={show(shape)} does not fit the model",
                expected=f"{name} has the shape {show(tuple(spec.shape))}",
                code="bad-shape",
            )


def show(shape: Iterable[int | str]) -> str:
    """1x3x224x224."""
    return "x".join(str(size) for size in shape) or "scalar"
