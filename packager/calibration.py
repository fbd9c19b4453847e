"""Calibration data however it comes, checked against the model's inputs: one array per input, the first axis the sample."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
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
                array = self.arrays[spec.name]
                one = array[index] if array.ndim == len(spec.shape) + 1 else array[index : index + 1]
                feed[spec.name] = np.ascontiguousarray(one)
            yield feed

    def record(self) -> Calibration:
        """What the manifest says of it."""
        total = hashlib.sha256()
        for name in sorted(self.arrays):
            array = self.arrays[name]
            total.update(f"{name}{array.dtype.str}{array.shape}".encode())
            total.update(array.tobytes())
        return Calibration(kind=self.kind, digest="sha256:" + total.hexdigest(), samples=len(self))

    def findings(self) -> list[Finding]:
        """Doubts about the data."""
        if self.kind == RANDOM:
            text = "calibrated on random data: speed and size are true, accuracy is not"
            return [Finding("random-calibration", WARNING, text, "give real samples with --calibration")]
        if len(self) < _FEW:
            many = "one sample gives" if len(self) == 1 else f"{len(self)} samples give"
            text = f"{many} poor activation ranges"
            return [Finding("few-calibration-samples", WARNING, text, "use 100 or more that look like real use")]
        return []


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
    _check(arrays, inputs, text)
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
            return "folder", {file.stem: _load(file) for file in sorted(path.glob("*.npy"))}
        return "images", images.load_folder(path, inputs, preprocessing)
    if path.is_file():
        loaded = _load(path)
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


def _load(path: Path) -> Any:
    import zipfile

    import numpy as np

    try:
        loaded = np.load(path, allow_pickle=False)
        return {name: loaded[name] for name in loaded.files} if hasattr(loaded, "files") else loaded
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(
            f"not a readable numpy file: {error}",
            where=str(path),
            expected=".npz or .npy without pickles",
            code="not-npz",
        ) from error


def _call(place: str, name: str) -> dict[str, Array]:
    import numpy as np

    function = torch_models.import_named(place, name)
    with contextlib.redirect_stdout(sys.stderr):
        try:
            made = function()
            rows = None if isinstance(made, Mapping) else list(made)
        except Exception as error:
            raise UsageError(f"{name}() raised {error!r}", where=place, code="function-failed") from error
    if rows is None:
        return {key: np.asarray(value) for key, value in made.items()}
    if not rows or not all(isinstance(row, Mapping) for row in rows):
        raise UsageError(
            f"{name}() gave no samples by input name", where=place, expected="a dict of arrays, or dicts one by one"
        )
    return {key: np.stack([np.asarray(row[key]) for row in rows]) for key in rows[0]}


def _check(arrays: Mapping[str, Array], inputs: Sequence[TensorSpec], where: str) -> None:
    import numpy as np

    known = {spec.name: spec for spec in inputs}
    for name in arrays:
        if name not in known:
            error = unknown_name("input in the calibration data", name, known)
            error.where, error.code = where, "wrong-key"
            raise error
    for name, spec in known.items():
        if name not in arrays:
            raise UsageError(
                f"the calibration data lacks the input {name!r}",
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
                fix=f"save it with .astype({spec.dtype!r})",
                code="wrong-dtype",
            )
        if not len(array.shape) or not len(array):
            raise UsageError(
                f"{name!r} holds no samples", where=where, expected="the first axis = samples", code="empty"
            )
        if not (_fits(array.shape[1:], spec.shape[1:]) or _fits(array.shape[1:], spec.shape)):
            raise UsageError(
                f"{name!r} has the shape {list(array.shape)}",
                where=where,
                expected=f"[samples, {', '.join(str(size) for size in spec.shape[1:])}]",
                code="wrong-shape",
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = int(np.argmax(~np.isfinite(array.reshape(len(array), -1)).all(axis=1)))
            raise UsageError(
                f"{name!r} holds NaN or infinity (first in sample {bad})",
                where=where,
                fix="repair the data",
                code="nan",
            )
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        raise UsageError(f"the inputs have different numbers of samples: {counts}", where=where, code="ragged")


def _fits(shape: Sequence[int], wanted: Sequence[int | str]) -> bool:
    return len(shape) == len(wanted) and all(
        not isinstance(want, int) or have == want for have, want in zip(shape, wanted, strict=True)
    )
