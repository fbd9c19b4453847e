"""The demo's trained classifier, its calibration data and its evaluation data, as files that ship with edgepack."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).resolve().parent
_LABELS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def model_path() -> Path:
    """The ONNX classifier: `image` float32 [batch, 1, 28, 28], normalised, to `logits` float32 [batch, 10]."""
    return _FOLDER / "fashion-cnn.onnx"


def calibration_path() -> Path:
    """200 normalised training images, 20 of each class: an .npz with the key `image`."""
    return _FOLDER / "calibration.npz"


def eval_path() -> Path:
    """1,000 normalised test images, 100 of each class: an .npz with the keys `image` and `labels` (int64)."""
    return _FOLDER / "eval.npz"


def labels() -> tuple[str, ...]:
    """The names of the ten classes, in the order of the logits."""
    return _LABELS
