"""Text drawn so that the truth is known exactly: lines, pages, captchas. Seeded throughout."""

# ruff: noqa: S311 - seeded data must be the same everywhere; nothing here is secret
from __future__ import annotations

import io
import random
import string
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np  # noqa: TID253 - every function here makes arrays

from benchmarks.zoo.wordnet import glosses

if TYPE_CHECKING:
    from benchmarks.zoo.packages import Packages

PRINTED = frozenset(string.ascii_letters + string.digits + " ,.'()-")
CAPTCHA_CLASSES = string.digits + string.ascii_uppercase


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


def lines(packages: Packages, seed: int) -> Iterator[tuple[str, Any]]:
    """(text, picture) without end: beginnings of WordNet's definitions in DejaVu, dark on light grey, blurred and noisy."""
    from PIL import Image, ImageDraw, ImageFont

    generator, fonts = random.Random(seed), _fonts(packages)
    definitions = [definition for _, definition in glosses(packages)]
    while True:
        words = generator.choice(definitions).split()[: generator.randint(2, 5)]
        text = "".join(letter for letter in " ".join(words) if letter in PRINTED)[:24].strip()
        if not text:
            continue
        # The basic layout does not depend on which shaping library Pillow was built with.
        size, basic = generator.randint(20, 40), ImageFont.Layout.BASIC
        font = ImageFont.truetype(str(generator.choice(fonts)), size, layout_engine=basic)
        left, top, right, bottom = font.getbbox(text)
        picture = Image.new("RGB", (int(right - left) + 16, int(bottom - top) + 12), (generator.randint(150, 255),) * 3)
        ImageDraw.Draw(picture).text((8 - left, 6 - top), text, font=font, fill=(generator.randint(0, 90),) * 3)
        yield text, _scanned(picture, generator, blurred=0.6, blur=1.4, grain=25)


def pages(packages: Packages, seed: int, width: int = 620, height: int = 820) -> Iterator[Any]:
    """Pages of definitions without end: margins, size of type, gaps between paragraphs and short last lines by chance."""
    from PIL import Image, ImageDraw, ImageFont

    generator, fonts = random.Random(seed), _fonts(packages)
    definitions = [definition for _, definition in glosses(packages)]
    while True:
        bright, size = generator.randint(215, 255), generator.randint(14, 30)
        page = Image.new("RGB", (width, height), (bright, bright, bright - generator.randint(0, 20)))
        draw, ink = ImageDraw.Draw(page), (generator.randint(0, 90),) * 3
        font = ImageFont.truetype(str(generator.choice(fonts)), size, layout_engine=ImageFont.Layout.BASIC)
        margin, top = generator.randint(15, 60), generator.randint(10, 60)
        while top < height - size - 10:
            words = " ".join(generator.choice(definitions) for _ in range(2)).split()
            while draw.textlength(" ".join(words), font=font) > width - margin - 20:
                words.pop()
            ends = generator.random() < 0.2
            shown = words[: generator.randint(1, len(words))] if ends and words else words
            draw.text((margin, top), " ".join(shown), font=font, fill=ink)
            top += int(size * (generator.uniform(1.8, 3) if ends else 1.4))
        yield _scanned(page, generator, blurred=0.5, blur=1.2, grain=14)


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
    plain = [letter for letter in CAPTCHA_CLASSES if letter not in "01IO"]
    pictures, rows = [], []
    for _ in range(count):
        text = "".join(generator.choice(plain) for _ in range(4))
        picture = Image.open(io.BytesIO(draw.generate(text).getvalue())).convert("RGB")
        pictures.append(np.asarray(picture, np.float32)[:, :, ::-1].transpose(2, 0, 1))
        rows.append([CAPTCHA_CLASSES.index(letter) for letter in text])
    return np.stack(pictures), np.array(rows, np.int64)
