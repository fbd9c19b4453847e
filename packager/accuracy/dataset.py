"""Evaluation sets: samples by input name and their labels, checked before anything is run on them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError, UsageError
from packager.calibration import check_arrays, load_numpy

if TYPE_CHECKING:
    import numpy as np

    from agent.contract.manifest import TensorSpec

    Array = np.ndarray[Any, Any]

LABELS = "labels"


@dataclasses.dataclass(frozen=True)
class EvalSet:
    """Arrays by input name, the first axis the sample; `labels` has as many rows, or is None."""

    arrays: Mapping[str, Array]
    labels: Array | None
    specs: Sequence[TensorSpec]
    where: str = ""

    def __len__(self) -> int:
        """The number of samples."""
        return len(next(iter(self.arrays.values())))

    @property
    def batch(self) -> int:
        """How many samples the model takes at once; 0 where a sample is a whole input, its batch axis included."""
        spec = self.specs[0]
        if self.arrays[spec.name].ndim == len(spec.shape) + 1:
            return 0
        first = spec.shape[0]
        return first if isinstance(first, int) else 1

    def feeds(self) -> Iterator[dict[str, Array]]:
        """The samples as the model wants them; where it wants more at once than are left, the last one fills up."""
        import numpy as np

        step = max(1, self.batch)
        for start in range(0, len(self), step):
            if not self.batch:
                yield {name: np.array(array[start]) for name, array in self.arrays.items()}
                continue
            picks = np.minimum(np.arange(start, start + step), len(self) - 1)
            yield {name: np.ascontiguousarray(array[picks]) for name, array in self.arrays.items()}

    def part(self, picks: Sequence[int] | Array) -> EvalSet:
        """The samples with these places."""
        arrays = {name: array[picks] for name, array in self.arrays.items()}
        labels = None if self.labels is None else self.labels[picks]
        return dataclasses.replace(self, arrays=arrays, labels=labels)

    def stack(self, rows: Iterable[Mapping[str, Array]]) -> dict[str, Array]:
        """The outputs for `feeds()`, stacked: the first axis the sample, the model's batch axis gone.

        An output whose first axis is not the batch keeps its whole shape. Raises ConvertError where that cannot be.
        """
        import numpy as np

        found: dict[str, list[Array]] = {}
        for row in rows:
            for name, value in row.items():
                found.setdefault(name, []).extend(self._samples(name, np.asarray(value)))
        return {name: np.stack(values[: len(self)]) for name, values in found.items()}

    def _samples(self, name: str, value: Array) -> list[Array]:
        if self.batch > 1:
            if value.ndim and len(value) == self.batch:
                return list(value)
            raise ConvertError(
                f"the output {name!r} has the shape {list(value.shape)} for {self.batch} samples",
                expected="the batch as the first axis",
                fix="export the model with a batch of 1",
                code="output-batch",
            )
        return [value[0] if value.ndim and len(value) == 1 else value]

    def digest(self) -> str:
        """The hex sha256 of names, types, shapes, values and labels."""
        total = hashlib.sha256()
        for name, array in [*sorted(self.arrays.items()), (LABELS, self.labels)]:
            if array is not None:
                total.update(f"{name}{array.dtype.str}{array.shape}".encode())
                total.update(array.tobytes())
        return total.hexdigest()


def load_eval(path: str | Path, inputs: Sequence[TensorSpec]) -> EvalSet:
    """The set in an .npz: an array per input of the model, and `labels`. Raises UsageError for whatever is wrong with it."""
    where = str(path)
    if not Path(path).is_file():
        raise UsageError(
            "there is no such evaluation set",
            where=where,
            expected="an .npz file with one array per input, and `labels`",
            code="no-eval",
        )
    loaded = load_numpy(Path(path))
    if not isinstance(loaded, dict):
        raise UsageError("a single array", where=where, expected="an .npz with one array per input", code="not-npz")
    names = {spec.name for spec in inputs}
    labels = loaded.pop(LABELS, None) if LABELS not in names else None
    check_arrays(loaded, inputs, where, "evaluation set")
    found = EvalSet(loaded, labels, tuple(inputs), where)
    if labels is not None:
        _check_labels(labels, len(found), where)
    return found


def _check_labels(labels: Array, samples: int, where: str) -> None:
    import numpy as np

    if not labels.ndim or len(labels) != samples:
        raise UsageError(
            f"{len(labels) if labels.ndim else 1} labels for {samples} samples",
            where=where,
            expected=f"`labels` with {samples} rows, one for each sample",
            code="labels-length",
        )
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise UsageError("the labels hold NaN or infinity", where=where, fix="repair the data", code="nan")
