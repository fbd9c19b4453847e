"""Small nets and data for the tests of pruning, distillation, fusion and quantisation."""

import torch
from torch import nn


def cnn(width=8):
    torch.manual_seed(0)
    body = [nn.Conv2d(1, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    body += [nn.Conv2d(width, width, 3, 1, 1, groups=width, bias=False), nn.Conv2d(width, 16, 1), nn.ReLU()]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 4)).eval()


def made():
    return cnn(), torch.zeros(1, 1, 12, 12)


def teacher():
    return cnn(16), torch.zeros(1, 1, 12, 12)


def wrong_teacher():
    net = cnn()
    net[-1] = nn.Linear(64, 7)
    return net.eval(), torch.zeros(1, 1, 12, 12)


def images(count=128):
    """Four classes by which quarter of the picture is bright."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(count) % 4
    pictures = torch.randn(count, 1, 12, 12, generator=generator) * 0.3
    for index, label in enumerate(labels.tolist()):
        row, column = divmod(label, 2)
        pictures[index, 0, 6 * row : 6 * row + 6, 6 * column : 6 * column + 6] += 1
    return pictures, labels


def batches(epoch):
    pictures, labels = images()
    order = torch.randperm(len(labels))
    for chosen in order.split(32):
        yield pictures[chosen], labels[chosen]


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(32, 96)
        self.proj = nn.Linear(32, 32)
        self.num_heads = 4

    def forward(self, x):
        shape = (x.shape[0], x.shape[1], 3, self.num_heads, 8)
        q, k, v = self.qkv(x).reshape(shape).permute(2, 0, 3, 1, 4).unbind(0)
        found = ((q @ k.transpose(-2, -1)) * 8**-0.5).softmax(-1) @ v
        return self.proj(found.transpose(1, 2).reshape(x.shape[0], x.shape[1], -1))


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(16, 32)
        self.attention = Attention()
        self.norm = nn.LayerNorm(32)
        self.wide = nn.Linear(32, 64)
        self.narrow = nn.Linear(64, 32)
        self.head = nn.Linear(32, 5)

    def forward(self, x):
        x = self.first(x)
        x = x + self.attention(x)
        x = x + self.narrow(nn.functional.gelu(self.wide(self.norm(x))))
        return self.head(x.mean(1))


def transformer():
    torch.manual_seed(0)
    return Transformer().eval(), torch.randn(1, 6, 16)


class Detector(nn.Module):
    """Boxes whose values are `large` times those of the scores, joined."""

    def __init__(self, large):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.boxes, self.scores = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1), nn.Conv2d(8, 6, 1)
        with torch.no_grad():
            self.boxes.weight *= large

    def forward(self, x):
        found = torch.relu(self.body(x))
        return torch.cat(tensors=[self.boxes(found), self.scores(found)], dim=1)
