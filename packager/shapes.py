"""Shapes as the user writes them: `image=1x3x224x224`, a free dimension by a name (`image=batchx3x224x224`), and for
runtimes that build for a range of shapes the least, usual and most: `image=1x3x224x224:4x3x224x224:8x3x224x224`.

Commas may stand for the x: `ids=batch,max_len` (a name that holds an x).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence

from agent.contract.errors import UsageError, unknown_name
from agent.contract.manifest import TensorSpec

Shape = tuple[int | str, ...]
_RANGE_PARTS = 3
_ITEM = re.compile(r"^(?:\d+|[A-Za-z_]\w*)$")


@dataclasses.dataclass(frozen=True)
class Range:
    """The least, usual and most shape of an input: what an engine with dynamic shapes is built for."""

    least: tuple[int, ...]
    usual: tuple[int, ...]
    most: tuple[int, ...]

    @property
    def free(self) -> tuple[int, ...]:
        """The axes on which they differ."""
        return tuple(axis for axis, (low, high) in enumerate(zip(self.least, self.most, strict=True)) if low != high)

    def named(self, name: str) -> Shape:
        """As a shape whose free axes have names: what an export must leave open."""
        return tuple(f"{name}_{axis}" if axis in self.free else size for axis, size in enumerate(self.usual))


def split_ranges(texts: Iterable[str]) -> tuple[list[str], dict[str, Range]]:
    """The texts that are plain shapes, and the ranges by input name. Raises UsageError."""
    plain: list[str] = []
    ranges: dict[str, Range] = {}
    for text in texts:
        name, _, dims = text.rpartition("=")
        if ":" not in dims:
            plain.append(text)
            continue
        shapes = [parse_shapes([f"{name}={part}"])[name] for part in dims.split(":")]
        ranges[name] = _range(text, shapes)
    return plain, ranges


def _range(text: str, shapes: list[Shape]) -> Range:
    numbers = [tuple(size for size in shape if isinstance(size, int)) for shape in shapes]
    ranks = {len(shape) for shape in (*shapes, *numbers)}
    if len(shapes) != _RANGE_PARTS or len(ranks) != 1:
        raise UsageError(
            f"not a range of shapes: {text!r}",
            expected="NAME=MIN:OPT:MAX, each of the same number of sizes (image=1x3x64x64:4x3x64x64:8x3x64x64)",
            code="bad-shape",
        )
    least, usual, most = numbers
    if not all(low <= mid <= high for low, mid, high in zip(least, usual, most, strict=True)):
        raise UsageError(
            f"the range of {text!r} is out of order: {show(least)} : {show(usual)} : {show(most)}",
            expected="min <= opt <= max in every dimension",
            code="bad-shape",
        )
    return Range(least, usual, most)


def check_ranges(ranges: Mapping[str, Range], inputs: Iterable[TensorSpec], *, may_free: bool = False) -> None:
    """Raises UsageError when a range names no input or lies outside what the model takes."""
    specs = list(inputs)
    for name, one in ranges.items():
        for shape in (one.least, one.usual, one.most):
            check_shapes({name: one.named(name) if may_free else shape}, specs, may_free=may_free)


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
                expected=_described(spec),
                fix=f"give --shape {name}={'x'.join(str(size) if isinstance(size, int) else 'N' for size in spec.shape)}"
                + (" with a number for each N" if any(isinstance(size, str) for size in spec.shape) else ""),
                code="bad-shape",
            )


def _described(spec: TensorSpec) -> str:
    free = " (a name stands for any size)" if any(isinstance(size, str) for size in spec.shape) else ""
    return f"{spec.name} has {len(spec.shape)} dimensions: {', '.join(map(str, spec.shape))}{free}"


def apply_shapes(shapes: Mapping[str, Sequence[int | str]], inputs: Sequence[TensorSpec]) -> list[TensorSpec]:
    """The inputs in these shapes. A free dimension has one size wherever its name stands."""
    sizes: dict[int | str, int | str] = {}
    for spec in inputs:
        pairs = zip(spec.shape, shapes.get(spec.name, ()), strict=False)
        sizes |= {free: size for free, size in pairs if isinstance(free, str)}
    found = []
    for spec in inputs:
        shape = list(shapes.get(spec.name, [sizes.get(size, size) for size in spec.shape]))
        found.append(dataclasses.replace(spec, shape=shape))
    return found


def show(shape: Iterable[int | str]) -> str:
    """1x3x224x224."""
    return "x".join(str(size) for size in shape) or "scalar"
