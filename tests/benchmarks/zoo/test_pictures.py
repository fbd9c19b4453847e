"""Faces, varied."""

import numpy as np

from benchmarks.zoo import pictures


def test_both_halves_of_varied_pictures_share_no_picture():
    first, second = np.full((32, 32), 0.2, np.float32), np.full((32, 32), 0.8, np.float32)
    found = pictures.varied(np.stack([first, second]), copies=5, seed=0)
    assert found.shape == (10, 32, 32)
    assert found[::2].max() < 0.45
    assert found[1::2].min() > 0.45
    assert len({one.tobytes() for one in found}) == 10


def test_a_moved_picture_is_turned_about_its_middle_and_then_moved():
    from PIL import Image

    dark = np.zeros((33, 33), np.float32)
    dark[16, 16] = 1
    moved = pictures._moved(Image.fromarray(dark), angle=0.5, scale=1.0, right=3, down=-2)
    assert np.unravel_index(moved.argmax(), moved.shape) == (14, 19)
