"""The ccexam package's classifier of MNIST; `build` loads the weights beside this file."""

from __future__ import annotations

from pathlib import Path

import torch  # noqa: TID253 - copied beside the weights, this is a model of its own
from torch import nn  # noqa: TID253 - as above


class MnistNet(nn.Module):
    """Two convolutions with pooling, two linear layers; the names are those of the published weights."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.classifier = nn.Sequential(nn.Linear(64 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, 10))

    def forward(self, image):
        """Class scores."""
        return self.classifier(self.features(image).flatten(1))


def build():
    """The module and an example, as edgepack takes them."""
    net = MnistNet()
    net.load_state_dict(torch.load(Path(__file__).with_name("weights.pt"), weights_only=True))
    return net.eval(), (torch.zeros(1, 1, 28, 28),)
