"""Two small classifiers of Fashion-MNIST after ResNet (He et al. 2015) and EfficientNet (Tan and Le 2019); `build_...` loads
the weights beside this file.
"""

from __future__ import annotations

from pathlib import Path

import torch  # noqa: TID253 - copied beside the weights, this is a model of its own
from torch import nn  # noqa: TID253 - as above


def unit(inputs, outputs, kernel, *, stride=1, groups=1, act=None):
    """Convolution, batch norm, activation."""
    window = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(window, nn.BatchNorm2d(outputs), *([act] if act else []))


class Residual(nn.Module):
    """Two 3x3 convolutions, added to their input (made smaller where they are)."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.body = nn.Sequential(unit(inputs, outputs, 3, stride=stride, act=nn.ReLU()), unit(outputs, outputs, 3))
        same = stride == 1 and inputs == outputs
        self.short = nn.Identity() if same else unit(inputs, outputs, 1, stride=stride)

    def forward(self, x):
        """The block."""
        return torch.relu(self.body(x) + self.short(x))


class Squeeze(nn.Module):
    """Each channel times a number between 0 and 1 that the channels' means give."""

    def __init__(self, channels):
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, channels // 4, 1), nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x):
        """The block."""
        means = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.up(torch.nn.functional.silu(self.down(means))))


class Inverted(nn.Module):
    """Widened, filtered channel by channel, squeezed and excited, narrowed; SiLU."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        wide = 4 * inputs
        self.adds = stride == 1 and inputs == outputs
        self.body = nn.Sequential(
            unit(inputs, wide, 1, act=nn.SiLU()),
            unit(wide, wide, 3, stride=stride, groups=wide, act=nn.SiLU()),
            Squeeze(wide),
            unit(wide, outputs, 1),
        )

    def forward(self, x):
        """The block."""
        return x + self.body(x) if self.adds else self.body(x)


class Net(nn.Module):
    """`features`, the mean over the map, `classifier`."""

    def __init__(self, block, act, widths):
        super().__init__()
        blocks, channels = [unit(1, widths[0], 3, act=act)], widths[0]
        for stage, width in enumerate(widths):
            for place in range(2):
                blocks.append(block(channels, width, 2 if stage and not place else 1))
                channels = width
        self.features, self.classifier = nn.Sequential(*blocks), nn.Linear(channels, 10)

    def forward(self, image):
        """Class scores."""
        return self.classifier(self.features(image).mean((2, 3)))


def resnet():
    """ResNet-14 of 16 to 64 channels."""
    return Net(Residual, nn.ReLU(), (16, 32, 64))


def efficientnet():
    """Six blocks of 16 to 40 channels."""
    return Net(Inverted, nn.SiLU(), (16, 24, 40))


def build():
    """The module and an example, as edgepack takes them; the folder's name says which."""
    here = Path(__file__).parent
    net = resnet() if "resnet" in here.name else efficientnet()
    net.load_state_dict(torch.load(here / "weights.pt", weights_only=True))
    return net.eval(), (torch.zeros(1, 1, 28, 28),)
