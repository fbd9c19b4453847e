"""Runs a model in TensorFlow Lite Micro itself: does it load, how large an arena does it need, what does it compute.

Task: model (path), inputs (.npz: input_0, input_1, ... with the first axis the sample), outputs (.npz to write), most (the
largest arena to try, in bytes). Answer: arena_bytes, or error.
"""

import json
import sys

ALIGNMENT = 16


def main() -> None:
    task = json.load(sys.stdin)
    with open(task["result"], "w", encoding="utf-8") as file:
        json.dump(answer(task), file)


def answer(task):
    from tflite_micro.python.tflite_micro import runtime

    with open(task["model"], "rb") as file:
        raw = file.read()
    size = smallest(lambda arena: fits(runtime, raw, arena), task["most"])
    if size is None:
        return {"error": "the model does not load in TensorFlow Lite Micro", "code": "tflm-refused"}
    run(runtime, raw, task, size)
    return {"arena_bytes": size}


def fits(runtime, raw, arena):
    try:
        interpreter = runtime.Interpreter.from_bytes(raw, arena_size=arena)
    except RuntimeError:
        return None
    return interpreter


def smallest(build, most):
    """The smallest arena, to the byte, with which `build` succeeds; None when not even `most` is enough."""
    high = 1 << 12
    while build(high) is None:
        if high >= most:
            return None
        high = min(high * 2, most)
    low = 0
    while high - low > 1:
        middle = (low + high) // 2
        if build(middle) is None:
            low = middle
        else:
            high = middle
    return high


def run(runtime, raw, task, size):
    import numpy as np

    interpreter = runtime.Interpreter.from_bytes(raw, arena_size=size)
    inputs = np.load(task["inputs"])
    rows = []
    for sample in range(len(inputs["input_0"])):
        for place, name in enumerate(sorted(inputs.files, key=lambda name: int(name.split("_")[1]))):
            interpreter.set_input(inputs[name][sample], place)
        interpreter.invoke()
        rows.append([np.array(interpreter.get_output(place)) for place in range(task["outputs_count"])])
    arrays = {"output_%d" % place: np.stack([row[place] for row in rows]) for place in range(task["outputs_count"])}
    np.savez(task["outputs"], **arrays)


if __name__ == "__main__":
    main()
