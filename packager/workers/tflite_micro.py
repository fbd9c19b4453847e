"""Runs a model in TensorFlow Lite Micro itself: does it load, how large an arena does it need, what does it compute.

Task: model (path), inputs (.npz: input_0, input_1, ... with the first axis the sample), outputs (.npz to write),
outputs_count, most (the largest arena to try, in bytes). Answer: arena_bytes, or error.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_FIRST_TRY = 1 << 12


def answer(task: dict[str, Any]) -> dict[str, Any]:
    """The document for the host."""
    from tflite_micro.python.tflite_micro import runtime

    raw = Path(task["model"]).read_bytes()
    size = smallest(lambda arena: _survives(lambda: _interpreter(runtime, raw, arena) is not None), task["most"])
    if size is None:
        return {"error": "the model does not load", "code": "tflm-refused"}
    try:
        _run(_interpreter(runtime, raw, size), task)
    except RuntimeError:
        # A model with variables takes their memory in its first run.
        size = smallest(lambda arena: _survives(lambda: _runs(_interpreter(runtime, raw, arena), task)), task["most"])
        if size is None:
            return {"error": "the model loads and does not run", "code": "tflm-refused"}
        _run(_interpreter(runtime, raw, size), task)
    return {"arena_bytes": size}


def _survives(trial: Callable[[], bool]) -> bool:
    """Whether the trial succeeds, tried in a child: in some arenas that are too small TensorFlow Lite Micro dies."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if trial() else 1
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1] == 0


def _interpreter(runtime: Any, raw: bytes, arena: int) -> Any:
    try:
        return runtime.Interpreter.from_bytes(raw, arena_size=arena)
    except RuntimeError:
        return None


def smallest(enough: Callable[[int], bool], most: int) -> int | None:
    """The smallest number, to one, that is enough; None when not even `most` is."""
    low, high = 0, _FIRST_TRY
    while not enough(high):
        if high >= most:
            return None
        low, high = high, min(high * 2, most)
    while high - low > 1:
        middle = (low + high) // 2
        if enough(middle):
            high = middle
        else:
            low = middle
    return high


def _runs(interpreter: Any, task: dict[str, Any]) -> bool:
    if interpreter is None:
        return False
    try:
        _run(interpreter, task)
    except RuntimeError:
        return False
    return True


def _run(interpreter: Any, task: dict[str, Any]) -> None:
    import numpy as np

    inputs = np.load(task["inputs"])
    names = sorted(inputs.files, key=lambda name: int(name.rpartition("_")[2]))
    outputs = range(task["outputs_count"])
    rows = []
    for sample in range(len(inputs["input_0"])):
        for place, name in enumerate(names):
            interpreter.set_input(inputs[name][sample], place)
        interpreter.invoke()
        rows.append([np.array(interpreter.get_output(place)) for place in outputs])
    np.savez(task["outputs"], **{f"output_{place}": np.stack([row[place] for row in rows]) for place in outputs})
