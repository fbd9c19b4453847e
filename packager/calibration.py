"""Calibration data however it comes, checked against the model's inputs: one array per input, the first axis the sample."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.errors import UsageError, unknown_name
from agent.contract.finding import WARNING, Finding
from agent.contract.manifest import Calibration, Preprocessing, TensorSpec
from packager import images, torch_models

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

RANDOM = "random"
RANDOM_SAMPLES = 16
_FEW = 16
_LABELS = "labels"  # an evaluation set may serve as it is; its labels are no input


@dataclasses.dataclass(frozen=True)
class CalibrationData:
    """Arrays by input name; `kind` and `digest` go into the manifest."""

    kind: str
    arrays: Mapping[str, Array]
    specs: Sequence[TensorSpec]
    preprocessing: Preprocessing | None = None

    def __len__(self) -> int:
        """How often the model can be fed: the samples, or batches of them where the model wants a fixed batch."""
        return min(_feed_count(self.arrays[spec.name], spec) for spec in self.specs)

    @property
    def samples(self) -> int:
        """The number of samples."""
        return min(len(array) for array in self.arrays.values())

    def feeds(self, most: int | None = None) -> Iterator[dict[str, Array]]:
        """Each sample as the model wants it, evenly spread over the set when only some are wanted."""
        import numpy as np

        count = len(self)
        picks = range(count) if most is None or most >= count else [index * count // most for index in range(most)]
        for index in picks:
            feed = {}
            for spec in self.specs:
                array, batch = self.arrays[spec.name], _batch(self.arrays[spec.name], spec)
                one = array[index * batch : (index + 1) * batch] if batch else array[index]
                feed[spec.name] = np.array(one)  # ascontiguousarray would make a vector of a scalar
            yield feed

    def record(self) -> Calibration:
        """What the manifest says of it."""
        total = hashlib.sha256()
        for name in sorted(self.arrays):
            array = self.arrays[name]
            total.update(f"{name}{array.dtype.str}{array.shape}".encode())
            total.update(array.tobytes())
        return Calibration(kind=self.kind, digest="sha256:" + total.hexdigest(), samples=self.samples)

    def findings(self) -> list[Finding]:
        """Doubts about the data."""
        if self.kind == RANDOM:
            text = "calibrated on random data: speed and size are true, accuracy is not"
            return [Finding("random-calibration", WARNING, text, "give real samples with --calibration")]
        if self.samples < _FEW:
            many = "one sample gives" if self.samples == 1 else f"{self.samples} samples give"
            text = f"{many} poor activation ranges"
            return [Finding("few-calibration-samples", WARNING, text, "use 100 or more that look like real use")]
        return []


def _batch(array: Array, spec: TensorSpec) -> int:
    """How many rows of the array make one input; 0 where each row is a whole input."""
    if array.ndim == len(spec.shape) + 1:
        return 0
    first = spec.shape[0]
    return first if isinstance(first, int) else 1


def _feed_count(array: Array, spec: TensorSpec) -> int:
    return len(array) // max(1, _batch(array, spec))


def load_calibration(
    text: str,
    inputs: Sequence[TensorSpec],
    preprocessing: Preprocessing | None = None,
    bounds: Mapping[str, int] | None = None,
) -> CalibrationData:
    """The data named by `text`: FILE.npz, a folder (of .npy per input, or of pictures), file.py:function, or `random`.

    `bounds` gives the number of valid values of integer inputs, for random data. Raises UsageError.
    """
    if text == RANDOM:
        return random_data(inputs, bounds or {})
    kind, arrays = _read(text, inputs, preprocessing)
    arrays = {name: array for name, array in arrays.items() if name != _LABELS or name in {s.name for s in inputs}}
    check_arrays(arrays, inputs, text)
    return CalibrationData(kind, arrays, tuple(inputs), preprocessing if kind == "images" else None)


def random_data(
    inputs: Sequence[TensorSpec], bounds: Mapping[str, int], samples: int = RANDOM_SAMPLES
) -> CalibrationData:
    """Standard normal floats, integers below their bound (2 where none is known); always the same."""
    import numpy as np

    generator = np.random.default_rng(0)
    arrays: dict[str, Array] = {}
    for spec in inputs:
        shape = (samples, *[size if isinstance(size, int) else 1 for size in spec.shape])
        kind = np.dtype(spec.dtype).kind
        if kind == "f":
            arrays[spec.name] = generator.standard_normal(shape).astype(spec.dtype)
        elif kind in "iub":
            arrays[spec.name] = generator.integers(0, bounds.get(spec.name, 2), shape).astype(spec.dtype)
        else:
            raise UsageError(f"no random data for {spec.name!r} of type {spec.dtype}", fix="give --calibration")
    return CalibrationData(RANDOM, arrays, tuple(inputs))


def _read(text: str, inputs: Sequence[TensorSpec], preprocessing: Preprocessing | None) -> tuple[str, dict[str, Array]]:
    path = Path(text)
    if path.is_dir():
        if any(path.glob("*.npy")):
            return "folder", {file.stem: load_numpy(file) for file in sorted(path.glob("*.npy"))}
        return "images", images.load_folder(path, inputs, preprocessing)
    if path.is_file():
        loaded = load_numpy(path)
        if not isinstance(loaded, dict):
            raise UsageError("a single array", where=text, expected="an .npz with one array per input", code="not-npz")
        return "npz", loaded
    halves = torch_models.split_factory(text)
    if halves is not None:
        return "function", _call(*halves)
    raise UsageError(
        "there is no such calibration data",
        where=text,
        expected="an .npz file, a folder of .npy or of pictures, file.py:function, or `random`",
        code="no-calibration",
    )


def load_numpy(path: Path) -> Any:
    """An .npz as a dict of arrays, an .npy as one. Raises UsageError."""
    import zipfile
    import zlib

    import numpy as np

    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            return {name: loaded[name] for name in loaded.files} if hasattr(loaded, "files") else loaded
    except (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise UsageError(
            f"not a readable numpy file: {error}",
            where=str(path),
            expected=".npz or .npy without pickles",
            code="not-npz",
        ) from error


def _call(place: str, name: str) -> dict[str, Array]:
    function = torch_models.import_named(place, name)
    with torch_models.user_code(place):
        try:
            arrays = _arrays(function())
        except UsageError as error:
            error.where = f"{name}() in {place}"
            raise
        except (Exception, SystemExit) as error:
            raise UsageError(f"{name}() raised {error!r}", where=place, code="function-failed") from error
    return arrays


def _arrays(made: Any) -> dict[str, Array]:
    """A dict of arrays as it is; dicts one by one, stacked."""
    import numpy as np

    if isinstance(made, Mapping):
        return {str(key): np.asarray(value) for key, value in made.items()}
    rows = list(made) if isinstance(made, Iterable) else []
    if not rows or not all(isinstance(row, Mapping) and row.keys() == rows[0].keys() for row in rows):
        raise UsageError(
            "the function gave no samples by input name",
            expected="a dict of arrays (first axis = samples), or dicts one by one, all with the same names",
            code="function-result",
        )
    return {key: np.stack([np.asarray(row[key]) for row in rows]) for key in rows[0]}


def _retyped(given: str, wanted: str) -> str:
    if given.startswith("float") and wanted in ("int8", "uint8", "int16"):
        return (
            "the model is quantised and takes round(value / scale) + zero point (edgepack inspect shows both); "
            "to be passed through as it is, it needs no calibration data"
        )
    return f"save it with .astype({wanted!r})"


def check_arrays(
    arrays: Mapping[str, Array], inputs: Sequence[TensorSpec], where: str, what: str = "calibration data"
) -> None:
    """Raises UsageError for arrays that the model does not take: names, types, shapes, NaN, unequal numbers of samples."""
    import numpy as np

    known = {spec.name: spec for spec in inputs}
    for name in arrays:
        if name not in known:
            error = unknown_name(f"input in the {what}", name, known)
            error.where, error.code = where, "wrong-key"
            error.fix = error.fix or "name each array after the input that it is for"
            raise error
    for name, spec in known.items():
        if name not in arrays:
            raise UsageError(
                f"the {what} lacks the input {name!r}",
                where=where,
                expected=f"arrays named {', '.join(sorted(known))}",
                code="missing-key",
            )
        array = arrays[name]
        if str(array.dtype) != spec.dtype:
            raise UsageError(
                f"{name!r} has the type {array.dtype}",
                where=where,
                expected=spec.dtype,
                fix=_retyped(str(array.dtype), spec.dtype),
                code="wrong-dtype",
            )
        _check_shape(array, spec, where)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = int(np.argmax(~np.isfinite(array.reshape(len(array), -1)).all(axis=1)))
            raise UsageError(
                f"{name!r} holds NaN or infinity (first in sample {bad})",
                where=where,
                fix="repair the data",
                code="nan",
            )
    counts = {name: _feed_count(arrays[name], spec) for name, spec in known.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise UsageError(f"the inputs have different numbers of samples: {told}", where=where, code="ragged")


def _check_shape(array: Array, spec: TensorSpec, where: str) -> None:
    if not array.ndim or not len(array):
        raise UsageError(
            f"{spec.name!r} holds no samples", where=where, expected="the first axis = samples", code="empty"
        )
    if not (_fits(array.shape[1:], spec.shape[1:]) or _fits(array.shape[1:], spec.shape)):
        wanted = ["samples", *spec.shape[1:]]
        raise UsageError(
            f"{spec.name!r} has the shape {list(array.shape)}",
            where=where,
            expected=f"[{', '.join(str(size) for size in wanted)}]",
            code="wrong-shape",
        )
    if not _feed_count(array, spec):
        raise UsageError(
            f"{spec.name!r} holds {len(array)} samples",
            where=where,
            expected=f"{_batch(array, spec)} at least: the model takes that many at once",
            code="too-few",
        )


def _fits(shape: Sequence[int], wanted: Sequence[int | str]) -> bool:
    return len(shape) == len(wanted) and all(
        not isinstance(want, int) or have == want for have, want in zip(shape, wanted, strict=True)
    )
