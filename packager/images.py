"""A folder of pictures as model inputs, by the preprocessing that the manifest will name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.errors import UsageError
from agent.contract.manifest import Preprocessing, TensorSpec

if TYPE_CHECKING:
    import numpy as np

_ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}
_RANK = 4
_GREY = 1


def parse_preprocessing(size: str | None, mean: str | None, std: str | None) -> Preprocessing | None:
    """--image-size 224 or 224x192 (height x width), --image-mean and --image-std as 0.485,0.456,0.406. Raises UsageError."""
    if not (size or mean or std):
        return None
    numbers = [_numbers(text, option) for text, option in ((mean or "0", "--image-mean"), (std or "1", "--image-std"))]
    if not size:
        raise UsageError("--image-size is missing", expected="--image-size 224 or 224x192 (height x width)")
    sides = size.lower().split("x")
    if not all(side.isdigit() and int(side) for side in sides) or len(sides) not in (1, 2):
        raise UsageError(f"not a size: {size!r}", expected="224 or 224x192 (height x width)")
    if 0 in numbers[1]:
        raise UsageError("--image-std holds 0", expected="the deviation of each channel")
    return Preprocessing(size=[int(sides[0]), int(sides[-1])], mean=numbers[0], std=numbers[1])


def _numbers(text: str, option: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"{option} is no list of numbers: {text!r}", expected="0.485,0.456,0.406") from error


def load_folder(
    folder: Path, inputs: Sequence[TensorSpec], preprocessing: Preprocessing | None
) -> dict[str, np.ndarray[Any, Any]]:
    """Every picture of the folder and its subfolders, in the order of their paths, as one array. Raises UsageError."""
    import numpy as np

    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise UsageError(f"Pillow is needed for pictures: {error}", fix="pip install 'edgepack[images]'") from error
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _ENDINGS)
    if not files:
        raise UsageError("no .npy and no pictures are in this folder", where=str(folder), code="no-calibration")
    if preprocessing is None:
        raise UsageError(
            "pictures need to know the model's preprocessing",
            where=str(folder),
            fix="give --image-size, --image-mean and --image-std",
            code="no-preprocessing",
        )
    if len(inputs) != 1 or len(inputs[0].shape) != _RANK:
        raise UsageError(
            "pictures fit a model with one 4-D input", where=str(folder), expected="an .npz for this model"
        )
    spec = inputs[0]
    channels_last = spec.layout == "nhwc" or (spec.shape[-1] in (1, 3) and spec.shape[1] not in (1, 3))
    channels = spec.shape[-1] if channels_last else spec.shape[1]
    for numbers, option in ((preprocessing.mean, "--image-mean"), (preprocessing.std, "--image-std")):
        if len(numbers) not in (1, channels) and isinstance(channels, int):
            raise UsageError(
                f"{option} holds {len(numbers)} numbers",
                expected=f"one, or {channels}: the model's pictures have that many channels",
                code="channels",
            )
    height, width = preprocessing.size
    rows = []
    for path in files:
        try:
            with Image.open(path) as picture:
                converted = picture.convert("L" if channels == _GREY else "RGB").resize((width, height), Image.BILINEAR)
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            # A damaged PNG is a SyntaxError to Pillow.
            raise UsageError(f"not a readable picture: {error}", where=str(path), code="bad-picture") from error
        pixels = np.asarray(converted, np.float32).reshape(height, width, -1) / 255
        pixels = (pixels - np.float32(preprocessing.mean)) / np.float32(preprocessing.std)
        rows.append((pixels if channels_last else pixels.transpose(2, 0, 1)).astype(np.float32))
    return {spec.name: np.stack(rows)}
