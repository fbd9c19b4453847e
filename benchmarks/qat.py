"""Quantisation-aware training beside post-training INT8 beside float, on Fashion-MNIST, in each runtime's own kernels.

    python benchmarks/qat.py /usr/share/datasets/fashion-mnist --train 12000 --test 2000 --epochs 6 --qat-epochs 3

A depthwise ReLU6 network (the hard kind) is trained in float, then quantised after training and, from the same weights,
with training. Accuracy is that of the lowered file, run by its own runtime on the test images. Needs the `torch` extra, and
`executorch` for its rows. One thread; the same seed gives the same numbers up to rounding.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
import time
from pathlib import Path
from typing import Any


def block(inputs: int, outputs: int, stride: int) -> list[Any]:
    from torch import nn

    return [
        nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.ReLU6(),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(),
    ]


def network() -> Any:
    from torch import nn

    stem = [nn.Conv2d(1, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU6()]
    body = [*block(24, 48, 1), *block(48, 96, 2), *block(96, 96, 1)]
    return nn.Sequential(*stem, *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 10))


def batches(images: Any, labels: Any, seed: int) -> Any:
    import torch

    generator = torch.Generator().manual_seed(seed)

    def epoch() -> Any:
        for chosen in torch.randperm(len(images), generator=generator).split(64):
            yield images[chosen], labels[chosen]

    return epoch


def train_float(model: Any, images: Any, labels: Any, epochs: int) -> None:
    import torch

    feed = batches(images, labels, 0)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    model.train()
    for epoch in range(epochs):
        for inputs, wanted in feed():
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), wanted).backward()
            optimiser.step()
        schedule.step()
        print(f"float epoch {epoch + 1}/{epochs}", flush=True)
    model.eval()


def lowered(target: Any, entry: str, recipe: str, calibration: Any, folder: Path) -> tuple[Any, Any]:
    """The target and the artifact that it makes of the factory."""
    from packager import registry
    from packager.profile import load_profile
    from packager.protocols import Lowering
    from packager.recipe import load_recipe

    work = folder / f"{target}-{recipe}-{entry.rpartition(':')[2]}"
    work.mkdir()
    job = Lowering(load_recipe(recipe), load_profile("linux-arm64"), work, calibration)
    source = registry.source("torch").open(entry, {})
    made = registry.target(target)
    return made, made.lower(source, job)


def score(target: Any, artifact: Any, images: Any, labels: Any) -> tuple[float, float]:
    """Accuracy, and milliseconds for one image (the middle of all)."""
    import numpy as np

    name = artifact.inputs[0].name
    right, times, last = 0, [], time.perf_counter()
    for index, found in enumerate(target.run(artifact, [{name: np.asarray(one[None])} for one in images])):
        now = time.perf_counter()
        times.append(now - last)
        right += int(found["output"].argmax() == labels[index])
        last = time.perf_counter()
    return right / len(images), sorted(times)[len(times) // 2] * 1e3


FACTORY = """
import torch, sys
sys.path.insert(0, {here!r})
from qat import network
from packager.compress import qat
EXAMPLE = (torch.zeros(1, 1, 28, 28),)
def made():
    model = network()
    model.load_state_dict(torch.load({weights!r}, weights_only=True))
    return model.eval(), EXAMPLE
def trained():
    return qat.load(made()[0], EXAMPLE, {learned!r}), EXAMPLE
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--train", type=int, default=12000)
    parser.add_argument("--test", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--qat-epochs", type=int, default=3)
    asked = parser.parse_args()
    import torch
    from train_demo import read_split

    from packager.calibration import CalibrationData
    from packager.compress import qat

    torch.manual_seed(0)
    torch.set_num_threads(1)
    images, labels = (torch.from_numpy(one[: asked.train].copy()) for one in read_split(asked.data, "train"))
    test_images, test_labels = (one[: asked.test] for one in read_split(asked.data, "test"))
    model = network()
    train_float(model, images, labels, asked.epochs)
    prepared = qat.prepare(model, (images[:1],), engine="qnnpack")
    loss = torch.nn.functional.cross_entropy
    qat.train(prepared, batches(images, labels, 1), loss, epochs=asked.qat_epochs, learning_rate=2e-4, progress=print)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights, learned, code = folder / "weights.pt", folder / "learned.pt", folder / "net.py"
        torch.save(model.state_dict(), weights)
        qat.save(prepared, learned)
        here = str(Path(__file__).parent)
        code.write_text(FACTORY.format(here=here, weights=str(weights), learned=str(learned)), encoding="utf-8")
        data = {"input": images[:200].numpy()}
        rows = [
            ("made", "fp32"),
            ("made", "int8"),
            ("made", "int8-entropy"),
            ("made", "int8-per-tensor"),
            ("trained", "int8"),
        ]
        targets = ["pytorch_lite", *(["executorch"] if importlib.util.find_spec("executorch") else [])]
        print("| runtime | recipe | accuracy | model bytes | ms per image |\n|---|---|---|---|---|")
        for target in targets:
            for factory, recipe in rows:
                if target == "executorch" and recipe == "int8-entropy":
                    continue  # its observers are its own
                from packager import registry

                source = registry.source("torch").open(f"{code}:{factory}", {})
                calibration = CalibrationData("npz", data, source.inputs)
                made, artifact = lowered(target, f"{code}:{factory}", recipe, calibration, folder)
                found, middle = score(made, artifact, test_images, test_labels)
                label = f"{recipe} (QAT)" if factory == "trained" else recipe
                size = artifact.path.stat().st_size
                print(f"| {target} | {label} | {found:.4f} | {size} | {middle:.3f} |", flush=True)


if __name__ == "__main__":
    main()
