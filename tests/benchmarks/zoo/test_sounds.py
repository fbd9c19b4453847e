"""Tones and their pitch."""

import numpy as np

from benchmarks.zoo import sounds


def test_pitch_is_right_within_a_quarter_tone(scored):
    metric = scored(sounds.PITCH)
    bins = np.zeros((2, 360), np.float32)
    bins[:, 100] = bins[:, 101] = 0.5
    hertz = 10 * 2 ** ((1997.3794084376191 + 20 * 100.5) / 1200)
    off = np.array([hertz * 2 ** (45 / 1200), hertz * 2 ** (55 / 1200)])
    assert metric.measure({"output": bins}, off).rows.tolist() == [1.0, 0.0]


def test_tones_have_the_pitch_that_is_said():
    clips, pitches = sounds.tones(20, seed=3)
    assert clips.shape == (20, 1024)
    assert np.allclose(clips.std(1), 1, atol=1e-5)
    clip, period = clips[pitches.argmax()], 16_000 / pitches.max()
    lag = round(20 * period)
    assert np.corrcoef(clip[:-lag], clip[lag:])[0, 1] > 0.8
    assert (sounds.tones(20, seed=3)[0] == clips).all()
