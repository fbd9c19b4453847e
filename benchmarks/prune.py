"""Accuracy against sparsity, and what structured pruning really buys in time, on Fashion-MNIST.

    python benchmarks/prune.py /usr/share/datasets/fashion-mnist --train 6000 --test 2000 --epochs 5 --seeds 3

The demo's network is trained from noise with each seed on a subset, then pruned from 10 to 90 %: in one shot without
training, and step by step with one epoch of fine-tuning after each step. The time is of the exported ONNX file on this
machine, one thread, beside the unpruned one in turns. Needs the `torch` and `prune` extras.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

METHODS = ("l1", "l1-global", "structured")
SHARES = [step / 10 for step in range(1, 10)]


def data(folder: Path, train: int, test: int) -> tuple[Any, Any]:
    """Batches of the first `train` training images, and the test images as tensors."""
    import torch
    from train_demo import read_split

    from packager.compress.training_data import from_arrays

    images, labels = read_split(folder, "train")
    batches = from_arrays({"input": images[:train], "labels": labels[:train]}, ["input"], batch=64)
    test_images, test_labels = read_split(folder, "test")
    return batches, (torch.from_numpy(test_images[:test].copy()), torch.from_numpy(test_labels[:test].copy()))


def accuracy(module: Any, test: Any) -> float:
    import torch

    module.eval()
    with torch.no_grad():
        found = torch.cat([module(part).argmax(1) for part in test[0].split(250)])
    return float((found == test[1]).float().mean())


def spread(values: list[float]) -> str:
    return f"{100 * statistics.mean(values):.1f} ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--train", type=int, default=6000)
    parser.add_argument("--test", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    asked = parser.parse_args()
    import torch
    from train_demo import make_model

    from packager.compress.prune.report import report
    from packager.compress.prune.run import FineTuning, PruneOptions, prune
    from packager.compress.train import Training, fit, named_loss, trainer

    torch.set_num_threads(1)
    batches, test = data(asked.data, asked.train, asked.test)
    example = (torch.zeros(1, 1, 28, 28),)
    loss = named_loss("cross_entropy")
    curves: dict[tuple[str, str, float], list[float]] = {}
    dense, speeds = [], {}
    for seed in range(asked.seeds):
        torch.manual_seed(seed)
        model = make_model()
        fit(model, batches, loss, Training(epochs=asked.epochs, learning_rate=2e-3, seed=seed))
        dense.append(accuracy(model, test))
        tuning = FineTuning(trainer(Training(epochs=1, learning_rate=5e-4, seed=seed)), batches, loss)
        for method in asked.methods:
            for share in SHARES:
                bare = prune(model, example, PruneOptions(method=method, sparsity=share))
                curves.setdefault((method, "one shot", share), []).append(accuracy(bare.module, test))
                if seed == 0 and share in (0.3, 0.5, 0.7, 0.9) and method != "l1":
                    with tempfile.TemporaryDirectory() as folder:
                        speeds[method, share] = report(model, bare.module, example, Path(folder), seconds=2.0)
            steps = PruneOptions(method=method, schedule=SHARES)
            tuned = prune(model, example, steps, fine_tuning=tuning, score=lambda one: accuracy(one, test))
            for share, score in tuned.curve:
                curves.setdefault((method, "fine-tuned", share), []).append(score or 0.0)
            print(f"seed {seed}, {method}: {[round(score or 0, 3) for _, score in tuned.curve]}", flush=True)
    print(f"unpruned: {spread(dense)} % over {asked.seeds} seeds")
    print(
        "| sparsity | "
        + " | ".join(f"{one}, {how}" for one in asked.methods for how in ("one shot", "fine-tuned"))
        + " |"
    )
    print("|---" * (1 + 2 * len(asked.methods)) + "|")
    for share in SHARES:
        cells = [spread(curves[one, how, share]) for one in asked.methods for how in ("one shot", "fine-tuned")]
        print(f"| {share:.0%} | " + " | ".join(cells) + " |")
    print("| method | sparsity | parameters | multiply-adds | file bytes | compressed | speed-up | interval |")
    print("|---" * 8 + "|")
    for (method, share), one in speeds.items():
        low, high = one.speed.interval
        after = one.after
        print(
            f"| {method} | {share:.0%} | {after.parameters} | {after.macs} | {after.file_bytes} | "
            f"{after.compressed_bytes} | {one.speed.ratio:.2f} | {low:.2f} to {high:.2f} |"
        )


if __name__ == "__main__":
    main()
