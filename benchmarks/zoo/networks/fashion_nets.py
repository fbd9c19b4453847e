"""Small classifiers of Fashion-MNIST: a plain one, a depthwise one, and their teacher; `build` loads the weights beside this
file.
"""

from __future__ import annotations

from pathlib import Path

import torch  # noqa: TID253 - copied beside the weights, this is a model of its own
from torch import nn  # noqa: TID253 - as above


def unit(inputs, outputs, kernel, act, *, stride=1, groups=1):
    """Convolution, batch norm, activation."""
    window = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [window, nn.BatchNorm2d(outputs), act()]


def cnn():
    """Two convolutions with pooling, two linear layers."""
    return [
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * 7 * 7, 64), nn.ReLU(), nn.Linear(64, 10)),
    ]


def dscnn():
    """After MobileNet (Howard et al. 2017): a convolution, then five times one per channel and one across; ReLU6."""
    layers, channels = unit(1, 24, 3, nn.ReLU6), 24
    for outputs, stride in ((48, 2), (48, 1), (96, 2), (96, 1), (128, 2)):
        layers += unit(channels, channels, 3, nn.ReLU6, stride=stride, groups=channels)
        layers += unit(channels, outputs, 1, nn.ReLU6)
        channels = outputs
    return [*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)]


def teacher():
    """Four convolutions of 32 to 192 channels."""
    layers, channels = [], 1
    for outputs in (32, 64, 128):
        layers += [*unit(channels, outputs, 3, nn.ReLU), nn.MaxPool2d(2)]
        channels = outputs
    return [*layers, *unit(channels, 192, 3, nn.ReLU), nn.Flatten(), nn.Dropout(0.2), nn.Linear(192 * 3 * 3, 10)]


class Net(nn.Module):
    """`layers`, one after the other."""

    def __init__(self, layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, image):
        """Class scores."""
        return self.layers(image)


NETS = {"fashion-cnn": cnn, "fashion-dscnn": dscnn, "fashion-teacher": teacher}


def build():
    """The module and an example, as edgepack takes them; the folder's name says which."""
    here = Path(__file__).parent
    net = Net(NETS[here.name]())
    net.load_state_dict(torch.load(here / "weights.pt", weights_only=True))
    return net.eval(), (torch.zeros(1, 1, 28, 28),)
