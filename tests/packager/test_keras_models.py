"""What the worker for Keras answers becomes specs and errors; TensorFlow itself is played by a file of a few lines."""

import sys

import pytest

from agent.contract.errors import ConvertError
from packager import keras_models, worker

ANSWERS = """
def answer(task):
    if "broken" in task["model"]:
        return {"error": "OSError: file signature not found", "code": "keras"}
    side = [{"name": "image", "dtype": "float32", "shape": [None, 8, 8, 3]}]
    return {"inputs": side, "outputs": side}
"""


@pytest.fixture(autouse=True)
def workers(tmp_path, monkeypatch):
    (tmp_path / "serve.py").write_bytes((worker.WORKERS / "serve.py").read_bytes())
    (tmp_path / "keras.py").write_text(ANSWERS)
    monkeypatch.setattr(worker, "WORKERS", tmp_path)
    monkeypatch.setattr(keras_models, "python_for_keras", lambda _: sys.executable)
    yield
    worker.end_workers()


def test_free_dimensions_are_called_by_their_tensor(tmp_path):
    inputs, outputs = keras_models.describe(tmp_path / "net.keras")
    assert inputs == outputs
    assert inputs[0].shape == ["image_0", 8, 8, 3]


def test_broken_file_is_named_with_what_to_do(tmp_path):
    with pytest.raises(ConvertError, match="file signature not found") as caught:
        keras_models.describe(tmp_path / "broken.h5")
    assert caught.value.where == "broken.h5"
    assert "SavedModel" in caught.value.expected
    assert "model.export" in caught.value.fix
