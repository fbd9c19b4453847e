"""Sounds and faces for the zoo: notes that are made, so that the truth is known, and pictures out of a package. Seeded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np  # noqa: TID253 - every function here makes arrays

if TYPE_CHECKING:
    from benchmarks.zoo.packages import Packages

RATE = 22050
LENGTH = 43844  # samples of a clip, as basic-pitch takes it
FRAMES, KEYS, LOWEST = 172, 88, 21  # of its answer; the piano's lowest key as a MIDI number
_A4, _A4_HERTZ = 69, 440.0
_TOP = 10_000.0  # Hz: above, an overtone is left out


def _note(key: int, seconds: float) -> Any:
    """A plucked tone with six overtones, each weaker than the one before."""
    time = np.arange(int(seconds * RATE)) / RATE
    pitch = _A4_HERTZ * 2.0 ** ((key - _A4) / 12)
    tones = [0.7**n * np.sin(2 * np.pi * pitch * (n + 1) * time) for n in range(6) if pitch * (n + 1) < _TOP]
    return sum(tones) * np.exp(-2.5 * time) * np.minimum(1.0, 100 * time)


def chords(count: int, seed: int) -> tuple[Any, Any]:
    """`count` clips of two seconds, (LENGTH, 1), with two to five notes each; and which keys sound in which frame."""
    draw = np.random.default_rng(seed)
    clips = np.zeros((count, LENGTH), np.float64)
    truth = np.zeros((count, FRAMES, KEYS), bool)
    per_second = FRAMES * RATE / LENGTH
    for place in range(count):
        clip, sounds = clips[place], truth[place]
        for _ in range(draw.integers(2, 6)):
            key, begin, lasts = int(draw.integers(45, 84)), draw.uniform(0, 1.3), draw.uniform(0.25, 0.7)
            first = int(begin * RATE)
            tone = _note(key, lasts)[: LENGTH - first]
            clip[first : first + len(tone)] += tone
            sounds[int(begin * per_second) : int((begin + lasts) * per_second), key - LOWEST] = True
        clips[place] = 0.5 * clip / max(np.abs(clip).max(), 1e-9) + draw.normal(0, 0.002, LENGTH)
    return clips[:, :, None].astype(np.float32), truth


def faces(packages: Packages, size: int, copies: int, seed: int) -> Any:
    """scikit-image's hundred faces (25 x 25, from Labeled Faces in the Wild), enlarged, in -1..1, (n, size, size, 1): each
    `copies` times in a row, from the second on mirrored by turns, lighter or darker, and with grain.
    """
    from PIL import Image

    small = np.load(packages["scikit-image"] / "skimage/data/lfw_subset.npy")[:100]
    draw, found = np.random.default_rng(seed), []
    for one in small:
        picture = Image.fromarray((one * 255).astype(np.uint8)).resize((size, size), Image.Resampling.BILINEAR)
        plain = np.asarray(picture, np.float32) / 255
        for copy in range(copies):
            shown = plain[:, ::-1] if copy % 2 else plain
            if copy:
                grain = draw.normal(0, 0.015, shown.shape)
                shown = shown * draw.uniform(0.75, 1.25) + draw.uniform(-0.08, 0.08) + grain
            found.append(shown.clip(0, 1) * 2 - 1)
    return np.stack(found)[..., None].astype(np.float32)
