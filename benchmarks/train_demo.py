"""Trains the demo's classifier on Fashion-MNIST and writes it, with its data, into `packager/demo_data`.

    python benchmarks/train_demo.py /usr/share/datasets/fashion-mnist packager/demo_data

Data: Fashion-MNIST, copyright 2017 Zalando SE, MIT licence, https://github.com/zalandoresearch/fashion-mnist; the four
idx files as they come in the Debian package `dataset-fashion-mnist`. The weights start from noise, nothing pretrained
goes in. Needs the `torch` extra. The same seed, threads and torch give the same weights. About five minutes on two
cores.
"""

from __future__ import annotations

import argparse
import gzip
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import torch

MEAN, STD = 0.286, 0.353  # of the training pixels, scaled to 0..1
CLASSES = 10
OPSET = 17
_SIDE = 28
_FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}


def read_split(folder: Path, split: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Normalised float32 images [n, 1, 28, 28] and int64 labels [n] of "train" or "test"."""
    import numpy as np

    images, labels = _FILES[split]
    pixels = np.frombuffer(gzip.decompress((folder / images).read_bytes()), np.uint8, offset=16)
    classes = np.frombuffer(gzip.decompress((folder / labels).read_bytes()), np.uint8, offset=8).astype(np.int64)
    scaled = pixels.reshape(len(classes), 1, _SIDE, _SIDE).astype(np.float32) / np.float32(255)
    return (scaled - np.float32(MEAN)) / np.float32(STD), classes


def first_of_each_class(labels: np.ndarray[Any, Any], count: int) -> np.ndarray[Any, Any]:
    """Indices, rising, of the first `count` samples of every class."""
    import numpy as np

    return np.sort(np.concatenate([np.flatnonzero(labels == label)[:count] for label in range(CLASSES)]))


def make_model() -> torch.nn.Sequential:
    """Convolution, batch norm, ReLU: plain enough for every converter, heavy enough (7 M multiply-adds) to be timed."""
    from torch import nn

    def block(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
        convolution = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
        return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        *block(1, 32, kernel=5, stride=2),
        *block(32, 32),
        *block(32, 64),
        nn.MaxPool2d(2),
        *block(64, 64),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, CLASSES),
    )


def train(
    model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, epochs: int, batch: int, peak_rate: float
) -> None:
    """Trains in place: SGD with Nesterov momentum, one warm-up and a cosine down to zero, random mirror images."""
    import torch

    optimiser = torch.optim.SGD(model.parameters(), lr=peak_rate, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = epochs * (len(images) // batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / (0.15 * steps), 0.5 * (1 + math.cos(math.pi * step / steps)))
    )
    model.train()
    for epoch in range(epochs):
        started, total = time.perf_counter(), 0.0
        order = torch.randperm(len(images))
        for chosen in order[: len(images) // batch * batch].split(batch):
            mirrored = torch.rand(batch, 1, 1, 1) < 0.5
            inputs = torch.where(mirrored, images[chosen].flip(3), images[chosen])
            loss = torch.nn.functional.cross_entropy(
                model(inputs.to(memory_format=torch.channels_last)), labels[chosen]
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item() * batch
        print(
            f"epoch {epoch + 1}/{epochs}: loss {total / len(order):.4f}, {time.perf_counter() - started:.0f} s",
            flush=True,
        )


def export(model: torch.nn.Module, path: Path) -> None:
    """Writes `model` as ONNX, batch norm folded, and without anything that tells of the machine it was made on."""
    import onnx
    import torch

    # The TorchScript exporter folds batch norm itself and writes opset 17 directly, without a version conversion.
    torch.onnx.export(
        model.eval().to(memory_format=torch.contiguous_format),
        (torch.zeros(1, 1, _SIDE, _SIDE),),
        path,
        dynamo=False,
        opset_version=OPSET,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
    )
    proto = onnx.load(path)
    strip(proto)
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def strip(proto: onnx.ModelProto) -> None:
    """Removes descriptions and metadata, where exporters leave stack traces and paths."""
    proto.doc_string = proto.graph.doc_string = ""
    proto.graph.name = "fashion-cnn"
    graph = proto.graph
    for part in (proto, graph):
        del part.metadata_props[:]
    for part in (*graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        part.doc_string = ""
        del part.metadata_props[:]


def accuracy(path: Path, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> float:
    """The share of `images` that the ONNX file, run by onnxruntime, puts into their class."""
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    parts = [images[start : start + 250] for start in range(0, len(images), 250)]
    logits = np.concatenate([session.run(["logits"], {"image": part})[0] for part in parts])
    return float((logits.argmax(1) == labels).mean())


def main() -> None:
    import numpy as np
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the four Fashion-MNIST idx .gz files")
    parser.add_argument("output", type=Path, help="folder that gets the .onnx and .npz files")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=0.1, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    torch.use_deterministic_algorithms(mode=True)
    torch.set_num_threads(options.threads)
    images, labels = read_split(options.data, "train")
    test_images, test_labels = read_split(options.data, "test")

    options.output.mkdir(parents=True, exist_ok=True)
    calibration, evaluation = first_of_each_class(labels, 20), first_of_each_class(test_labels, 100)
    np.savez_compressed(options.output / "calibration.npz", image=images[calibration])
    np.savez_compressed(options.output / "eval.npz", image=test_images[evaluation], labels=test_labels[evaluation])

    model = make_model().to(memory_format=torch.channels_last)
    train(model, torch.from_numpy(images), torch.from_numpy(labels), options.epochs, options.batch, options.rate)
    path = options.output / "fashion-cnn.onnx"
    export(model, path)
    print(f"accuracy on all {len(test_labels)} test images: {accuracy(path, test_images, test_labels):.4f}")
    score = accuracy(path, test_images[evaluation], test_labels[evaluation])
    print(f"accuracy on the {len(evaluation)} of eval.npz: {score:.4f}")
    for name in ("fashion-cnn.onnx", "calibration.npz", "eval.npz"):
        print(f"{name}: {(options.output / name).stat().st_size} bytes")


if __name__ == "__main__":
    main()
