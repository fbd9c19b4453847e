"""MobileNetV2 1.0 (Sandler et al. 2018), ending in a linear classifier; `build` loads the weights beside this file."""

from __future__ import annotations

from pathlib import Path

import torch  # noqa: TID253 - copied beside the weights, this is a model of its own
from torch import nn  # noqa: TID253 - as above

# Expansion, channels, how often, first stride: table 2 of the paper.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def unit(inputs, outputs, kernel, *, stride=1, groups=1):
    """Convolution and batch norm."""
    window = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [window, nn.BatchNorm2d(outputs)]


class Bottleneck(nn.Module):
    """Widened, filtered channel by channel, narrowed; added to its input where the shapes agree."""

    def __init__(self, inputs, outputs, stride, expansion):
        super().__init__()
        wide = inputs * expansion
        self.adds = stride == 1 and inputs == outputs
        parts = [*unit(inputs, wide, 1), nn.ReLU6()] if expansion > 1 else []
        parts += [*unit(wide, wide, 3, stride=stride, groups=wide), nn.ReLU6(), *unit(wide, outputs, 1)]
        self.conv = nn.Sequential(*parts)

    def forward(self, x):
        """The block."""
        return x + self.conv(x) if self.adds else self.conv(x)


class MobileNetV2(nn.Module):
    """`features`, the mean over the map, `classifier`."""

    def __init__(self, classes):
        super().__init__()
        blocks, channels = [nn.Sequential(*unit(3, 32, 3, stride=2), nn.ReLU6())], 32
        for expansion, outputs, count, first in STAGES:
            for place in range(count):
                blocks.append(Bottleneck(channels, outputs, first if place == 0 else 1, expansion))
                channels = outputs
        blocks.append(nn.Sequential(*unit(channels, 1280, 1), nn.ReLU6()))
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Linear(1280, classes)

    def forward(self, image):
        """Class scores."""
        return self.classifier(self.features(image).mean((2, 3)))


def build():
    """The module and an example, as edgepack takes them."""
    net = MobileNetV2(10)
    net.load_state_dict(torch.load(Path(__file__).with_name("weights.pt"), weights_only=True))
    return net.eval(), (torch.zeros(1, 3, 96, 96),)
