"""A file of a user's: networks and factories, right and wrong, each by its name."""

NET = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.last = nn.Linear(4, 10)

    def forward(self, image):
        return self.last(torch.relu(self.norm(self.conv(image))).mean((2, 3)))


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 4)

    def forward(self, left, right, scale=None):
        total = self.first(left) + right
        return {"sum": total, "more": (total * 2, total.sum(1))}


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(50, 6)

    def forward(self, ids):
        return self.table(ids).mean(1)


class Gelu(nn.Module):
    def forward(self, x):
        return torch.split(nn.functional.gelu(x), 3, dim=1)[0].amax(1)


def gelu():
    return Gelu().eval(), torch.randn(2, 8)


class Branches(nn.Module):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else x - 1


def plain():
    return Net()


def tensor():
    return Net().eval(), torch.randn(1, 1, 8, 8)


def tuple_():
    return Net().eval(), (torch.randn(1, 1, 8, 8),)


def dict_():
    return Pair().eval(), {"right": torch.randn(1, 4), "left": torch.randn(1, 8)}


def tokens():
    return Tokens().eval(), torch.tensor([[7, 49, 3]])


def noisy():
    print("loading weights")
    return tensor()


def half():
    return Net().eval().half(), torch.randn(1, 1, 8, 8).half()


def branches():
    return Branches().eval(), torch.ones(1, 4)


def late():
    import helper
    return helper.make()


def raises():
    raise ValueError("weights.pt is not here")


def leaves():
    raise SystemExit(0)


def number():
    return 7


def numbers():
    return Net(), [1, 2]


def misnamed():
    return Pair(), {"left": torch.randn(1, 8), "rihgt": torch.randn(1, 4)}


def misfit():
    return Net(), torch.randn(1, 3, 8, 8)


def empty():
    return Net(), torch.randn(0, 1, 8, 8)


def text():
    class Talks(nn.Module):
        def forward(self, x):
            return "a cat"
    return Talks(), torch.randn(1, 4)


model = Net().eval()
"""
