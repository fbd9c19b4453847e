"""Keras models, in an interpreter that holds TensorFlow: described, run, converted to TFLite or (with tf2onnx) to ONNX.

Task: do (describe, run, convert or onnx), model (.keras, .h5 or a SavedModel folder); run: inputs (.npz) and outputs (.npz
to write), names; convert and onnx: file (to write), shapes (null where free); onnx: opset. Answer: inputs and
outputs (name, dtype, shape; null where free).
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def warm() -> None:
    """TensorFlow takes seconds to import."""
    with contextlib.redirect_stdout(io.StringIO()):
        importlib.import_module("tensorflow")


def answer(task: dict[str, Any]) -> dict[str, Any]:
    """The document for the host."""
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            return _TASKS[task["do"]](task)
        except Exception as error:  # noqa: BLE001 - TensorFlow raises classes without a common base
            return {"error": f"{type(error).__name__}: {str(error)[:800]}", "code": "keras"}


def _load(path: str) -> tuple[Any, list[Any], list[Any]]:
    """A function of the inputs by name that gives the outputs by name, and both sides' specs; read once."""
    files = sorted(Path(path).rglob("*")) if Path(path).is_dir() else [Path(path)]
    state = (path, *((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files))
    if state not in _loaded:
        _loaded.clear()
        _loaded[state] = _read(path)
    return _loaded[state]


_loaded: dict[Any, tuple[Any, list[Any], list[Any]]] = {}


def _read(path: str) -> tuple[Any, list[Any], list[Any]]:
    import tensorflow as tf

    if Path(path).is_dir():
        loaded = tf.saved_model.load(path)
        call = loaded.signatures["serving_default"]
        inputs = list(call.structured_input_signature[1].values())
        outputs = [(name, spec.dtype.name, spec.shape) for name, spec in sorted(call.structured_outputs.items())]
        call.kept = loaded  # the variables live as long as the object
        return (lambda feed: call(**feed)), [(i.name, i.dtype.name, i.shape) for i in inputs], outputs
    model = _keras_model(path)
    names = [tensor.name.partition(":")[0] for tensor in model.inputs]
    outs = _output_names(model)
    inputs = [(name, _dtype(t), t.shape) for name, t in zip(names, model.inputs, strict=True)]
    outputs = [(name, _dtype(t), t.shape) for name, t in zip(outs, model.outputs, strict=True)]

    def call_model(feed: dict[str, Any]) -> dict[str, Any]:
        result = model([feed[name] for name in names] if len(names) > 1 else feed[names[0]], training=False)
        values = list(result.values()) if isinstance(result, dict) else result
        return dict(zip(outs, values if isinstance(values, (list, tuple)) else [values], strict=True))

    return call_model, inputs, outputs


def _keras_model(path: str) -> Any:
    import tensorflow as tf

    try:
        return tf.keras.models.load_model(path, compile=False)
    except Exception:  # noqa: BLE001 - Keras raises whatever its layers' constructors raise
        # HDF5 files of Keras 2 may hold what Keras 3 does not read.
        import tf_keras

        return tf_keras.models.load_model(path, compile=False)


def _output_names(model: Any) -> list[str]:
    names = list(getattr(model, "output_names", []) or [])
    count = len(model.outputs)
    if len(names) == count and len(set(names)) == count:
        return names
    return ["output"] if count == 1 else [f"output_{place}" for place in range(count)]


def _dtype(tensor: Any) -> str:
    return str(getattr(tensor.dtype, "name", tensor.dtype))


def _specs(rows: list[Any]) -> list[dict[str, Any]]:
    return [
        {"name": name, "dtype": dtype, "shape": [None if s is None else int(s) for s in shape]}
        for name, dtype, shape in rows
    ]


def _describe(task: dict[str, Any]) -> dict[str, Any]:
    _, inputs, outputs = _load(task["model"])
    return {"inputs": _specs(inputs), "outputs": _specs(outputs)}


def _run(task: dict[str, Any]) -> dict[str, Any]:
    import numpy as np
    import tensorflow as tf

    _, inputs, outputs = _load(task["model"])
    with np.load(task["inputs"]) as file:
        arrays = [file[f"input_{place}"] for place in range(len(inputs))]
    # As a graph, which the conversion takes too: layer by layer each sample would cost several times as much.
    shapes = {name: array.shape[1:] for (name, _, _), array in zip(inputs, arrays, strict=True)}
    traced, _ = _traced(task["model"], shapes)
    rows = []
    for sample in range(len(arrays[0])):
        result = traced(*(tf.constant(array[sample]) for array in arrays))
        rows.append([np.asarray(result[f"output_{place}"]) for place in range(len(outputs))])
    np.savez(
        task["outputs"], **{f"output_{place}": np.stack([row[place] for row in rows]) for place in range(len(outputs))}
    )
    return {}


def _traced(path: str, shapes: dict[str, Any]) -> tuple[Any, list[Any]]:
    """The model as a tf.function of input_0, input_1 ... that gives output_0 ...; and the specs it is traced with."""
    import tensorflow as tf

    call, inputs, outputs = _load(path)
    specs = {
        name: tf.TensorSpec(shapes[name], dtype, name=f"input_{place}") for place, (name, dtype, _) in enumerate(inputs)
    }
    key = (call, *(str(spec) for spec in specs.values()))
    if key not in _functions:
        _functions.clear()

        def serve(*values: Any) -> dict[str, Any]:
            result = call(dict(zip(specs, values, strict=True)))
            return {f"output_{place}": result[name] for place, (name, _, _) in enumerate(outputs)}

        _functions[key] = tf.function(serve, input_signature=list(specs.values()))
    return _functions[key], list(specs.values())


_functions: dict[Any, Any] = {}


def _convert(task: dict[str, Any]) -> dict[str, Any]:
    import tensorflow as tf

    traced, _ = _traced(task["model"], task["shapes"])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced.get_concrete_function()], tf.Module())
    Path(task["file"]).write_bytes(converter.convert())
    return {"tensorflow": tf.__version__}


def _onnx(task: dict[str, Any]) -> dict[str, Any]:
    import tensorflow as tf
    import tf2onnx

    traced, specs = _traced(task["model"], task["shapes"])
    tf2onnx.convert.from_function(traced, input_signature=specs, opset=task["opset"], output_path=task["file"])
    return {"tensorflow": tf.__version__, "tf2onnx": tf2onnx.__version__}


_TASKS = {"describe": _describe, "run": _run, "convert": _convert, "onnx": _onnx}
