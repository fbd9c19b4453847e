"""A small student with and without a teacher, on Fashion-MNIST.

    python benchmarks/distill.py /usr/share/datasets/fashion-mnist --train 1500 --test 2000 --seeds 3

The teacher is the demo's network, trained on four times as many images; the students, a tenth of its parameters, see the
same few images each time and differ by what they learn from. Every kind of distillation over several seeds. The training
must be long: softened outputs teach slowly (at 12 epochs of a rate of 3e-3 a student of labels alone is ahead). Needs the
`torch` extra.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any


def student() -> Any:
    from torch import nn

    def block(inputs: int, outputs: int, stride: int) -> list[Any]:
        return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    body = [*block(1, 8, 2), *block(8, 16, 1), *block(16, 24, 2)]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--train", type=int, default=1500)
    parser.add_argument("--test", type=int, default=2000)
    parser.add_argument("--teacher-epochs", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--rate", type=float, default=1e-2)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    import torch
    from prune import accuracy, data
    from train_demo import make_model

    from packager.compress.distill import Distillation, Feature, Relation, Response, distill
    from packager.compress.train import Training, fit, named_loss

    torch.set_num_threads(1)
    many, test = data(asked.data, 4 * asked.train, asked.test)
    few, _ = data(asked.data, asked.train, asked.test)
    torch.manual_seed(0)
    teacher = make_model()
    fit(teacher, many, named_loss("cross_entropy"), Training(epochs=asked.teacher_epochs, learning_rate=2e-3))
    top = accuracy(teacher, test)
    # The maps after the second block of each: 16 channels of 14 x 14 here, 32 of 14 x 14 there.
    feature, relation = Feature("5", "5", 0.5), Relation(weight=3.0)
    kinds = {
        "labels only": Distillation(response=None),
        "response (T 4, alpha 0.7)": Distillation(Response()),
        "feature": Distillation(None, features=(feature,)),
        "relation": Distillation(None, relations=(relation,)),
        "all three": Distillation(Response(), (feature,), (relation,)),
    }
    example = (torch.zeros(1, 1, 28, 28),)
    sizes = [sum(value.numel() for value in one.parameters()) for one in (teacher, student())]
    print(f"teacher {sizes[0]} parameters, {top:.1%}; student {sizes[1]} parameters", flush=True)
    print(f"| learns from | accuracy over {asked.seeds} seeds | against labels only, seed by seed |\n|---|---|---|")
    scores: dict[str, list[float]] = {}
    for kind, how in kinds.items():
        for seed in range(asked.seeds):
            torch.manual_seed(seed)
            one = student()
            distill(one, teacher, example, few, how, Training(epochs=asked.epochs, learning_rate=asked.rate, seed=seed))
            scores.setdefault(kind, []).append(accuracy(one, test))
        found = scores[kind]
        gains = [100 * (left - right) for left, right in zip(found, scores["labels only"], strict=True)]
        told = ", ".join(f"{gain:+.1f}" for gain in gains)
        print(
            f"| {kind} | {100 * statistics.mean(found):.1f} ± {100 * statistics.stdev(found):.1f} % | {told} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
