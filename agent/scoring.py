"""A whole evaluation set through a runner, its outputs written as they come: neither has to fit into memory."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any, Callable, Dict, List

from agent.contract.errors import DeviceError, IntegrityError
from agent.disk import disk_errors, no_space

_SAY_SECONDS = 2.0
SPARE_BYTES = 8 << 20  # left free on the disk, so that results can still be written


def run(runner: Any, inputs: Dict[str, str], out: str, progress: Callable[[str], None]) -> List[Dict[str, str]]:
    """`inputs` are .npy files by input name, first axis the run; `out` is the outputs' path without its number and suffix.

    Gives name and file of each output: a .npy, first axis the run, numbers as the original's where the model's are quantised.
    Raises IntegrityError for a file that is none, DeviceError ("no-space", "eval-shape").
    """
    import numpy as np

    try:
        arrays = {name: np.load(path, mmap_mode="r", allow_pickle=False) for name, path in inputs.items()}
    except (OSError, ValueError) as error:
        raise IntegrityError("the evaluation set cannot be read: %s" % error) from error
    count = min(len(array) for array in arrays.values())
    real = getattr(runner, "real_outputs", list)
    names = runner.output_names()
    files: List[_Rows] = []
    told = time.monotonic()
    try:
        for index in range(count):
            # A copy: a mapped file is no memory of one's own, and some runtimes want it aligned.
            feed = {name: np.array(array[index]) for name, array in arrays.items()}
            row = [np.asarray(value) for value in real(runner.run(feed))]
            if not files:
                _need(out, count * sum(value.nbytes for value in row))
                files = [_Rows("%s-%d.npy" % (out, place), value, count) for place, value in enumerate(row)]
            for file, value in zip(files, row):
                file.add(value, index)
            if time.monotonic() - told > _SAY_SECONDS:
                told = time.monotonic()
                progress("evaluated %d of %d" % (index + 1, count))
    finally:
        for file in files:
            file.close()
    return [{"name": name, "file": os.path.basename(file.path)} for name, file in zip(names, files)]


def _need(out: str, size: int) -> None:
    free = shutil.disk_usage(os.path.dirname(out)).free
    if free < size + SPARE_BYTES:
        raise no_space(Path(out).parent, size + SPARE_BYTES, free)


class _Rows:
    """A .npy that grows row by row."""

    def __init__(self, path: str, first: Any, count: int) -> None:
        import numpy as np

        self.path, self._shape, self._dtype = path, first.shape, first.dtype
        header = {
            "descr": np.lib.format.dtype_to_descr(first.dtype),
            "fortran_order": False,
            "shape": (count, *first.shape),
        }
        with disk_errors(Path(path)):
            self._file = open(path, "wb")  # noqa: SIM115 - open for as long as the rows come
            np.lib.format.write_array_header_1_0(self._file, header)

    def add(self, value: Any, index: int) -> None:
        if value.shape != self._shape or value.dtype != self._dtype:
            raise DeviceError(
                "the outputs of sample %d have another shape than the first's: %s" % (index, list(value.shape)),
                expected=str(list(self._shape)),
                fix="give samples of one shape",
                code="eval-shape",
            )
        with disk_errors(Path(self.path)):
            self._file.write(value.tobytes())

    def close(self) -> None:
        self._file.close()
