"""CREPE (Kim et al. 2018) in its tiny size, a tracker of pitch: 1,024 samples at 16 kHz to 360 bins of 20 cents; `build` loads
the weights beside this file.
"""

from __future__ import annotations

from pathlib import Path

import torch  # noqa: TID253 - copied beside the weights, this is a model of its own
from torch import nn  # noqa: TID253 - as above

# Channels in and out, kernel, stride, zeros before and after: an even kernel cannot be padded evenly at stride 1.
LAYERS = (
    (1, 128, 512, 4, (254, 254)),
    (128, 16, 64, 1, (31, 32)),
    (16, 16, 64, 1, (31, 32)),
    (16, 16, 64, 1, (31, 32)),
    (16, 32, 64, 1, (31, 32)),
    (32, 64, 64, 1, (31, 32)),
)


class Layer(nn.Module):
    """Padding, convolution, ReLU, and only then the batch norm, which therefore cannot be folded; half the length."""

    def __init__(self, inputs, outputs, kernel, stride, padding):
        super().__init__()
        self.padding = (0, 0, *padding)
        self.conv = nn.Conv2d(inputs, outputs, (kernel, 1), (stride, 1))
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x):
        """The layer; time is the height."""
        x = self.norm(torch.relu(self.conv(nn.functional.pad(x, self.padding))))
        return nn.functional.max_pool2d(x, (2, 1))


class Crepe(nn.Module):
    """Six layers, then a linear one over what is left of time."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(*(Layer(*one) for one in LAYERS))
        self.classifier = nn.Linear(4 * 64, 360)

    def forward(self, audio):
        """How likely each pitch is, 0..1, for audio (n, 1024) of mean 0 and deviation 1."""
        x = self.layers(audio[:, None, :, None])
        return torch.sigmoid(self.classifier(x.squeeze(3).transpose(1, 2).flatten(1)))


def build():
    """The module and an example, as edgepack takes them."""
    net = Crepe()
    net.load_state_dict(torch.load(Path(__file__).with_name("weights.pt"), weights_only=True))
    return net.eval(), (torch.zeros(1, 1024),)
