"""ONNX to TFLite in float32 by onnx2tf, in the interpreter that holds it.

Task: model (path), folder (to write into), keep (inputs whose shape stays as it is), layout_kept (all of them). Answer: file.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
from pathlib import Path
from typing import Any


def warm() -> None:
    """What onnx2tf would import at its first conversion."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        importlib.import_module("onnx2tf.onnx2tf")


def answer(task: dict[str, Any]) -> dict[str, Any]:
    """The document for the host."""
    folder = Path(task["folder"])
    os.chdir(folder)  # onnx2tf leaves and fetches files in the current folder
    talk = io.StringIO()
    try:
        with contextlib.redirect_stdout(talk), contextlib.redirect_stderr(talk):
            import onnx2tf

            onnx2tf.convert(
                input_onnx_file_path=task["model"],
                output_folder_path=str(folder),
                tflite_backend="flatbuffer_direct",
                copy_onnx_input_output_names_to_tflite=True,
                keep_shape_absolutely_input_names=task["keep"] or None,
                non_verbose=True,
            )
    except BaseException as error:  # noqa: BLE001 - onnx2tf ends with sys.exit(1) where it gives up
        told = talk.getvalue().replace("\r", "\n").splitlines()
        telling = [line.strip() for line in told if "ERROR" in line or "rror:" in line or "nsupported" in line]
        return {"error": " ".join(telling[-3:])[-800:] or repr(error)[:800], "code": "onnx2tf"}
    found = sorted(folder.glob("*_float32.tflite"))
    if not found:
        return {"error": "no float32 file was written", "code": "onnx2tf"}
    return {"file": str(found[0])}
