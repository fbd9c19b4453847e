"""Explicit pads become the convolutions' own: the same numbers, and no float pad between INT8 kernels."""

import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra")
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

from torch import nn  # noqa: E402 - after the skip

from packager.compress import qat  # noqa: E402
from packager.compress.quantize import torch_static  # noqa: E402
from packager.compress.quantize.torch_pads import fold_pads  # noqa: E402
from packager.recipe import NAMED  # noqa: E402
from packager.torch_compare import outputs_of, worst_cosine  # noqa: E402

pad = nn.functional.pad


class Padded(nn.Module):
    """As TensorFlow's "same" comes out of a conversion: an even pad, one of nothing, a layer that pads, an uneven one."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3)
        self.narrow = nn.Conv2d(16, 8, 1)
        self.even = nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(8, 8, 3, groups=8))
        self.uneven = nn.Conv2d(8, 8, 3, 2, groups=8)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.first(pad(x, (1, 1, 1, 1))).relu()
        x = self.even(self.narrow(pad(x, (0, 0, 0, 0))))
        return self.head(self.uneven(pad(x, [0, 1, 0, 1])).mean((2, 3)))


class Kept(nn.Module):
    """Pads that no convolution can take."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3)
        self.shared = nn.Conv2d(4, 4, 3)
        self.same = nn.Conv2d(4, 4, 3, padding="same")
        self.mirror = nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")

    def forward(self, x):
        x = self.conv(pad(x, (1, 1, 1, 1), value=0.5)) + self.mirror(pad(x, (0, 0, 0, 0, 0, 0))[:, :4])
        x = self.shared(pad(self.shared(pad(x, (1, 1, 1, 1))), (1, 1, 1, 1)))
        x = self.same(pad(x, (1, 1, 1, 1)))
        x = self.mirror(pad(pad(x, (-1, -1, -1, -1)), (1, 1, 1, 1)))
        return pad(pad(x, (1, 1, 1, 1), mode="reflect"), (1, 1)).mean((2, 3))


def traced(module):
    torch.manual_seed(0)
    return torch.fx.symbolic_trace(module().eval())


def pads(graph):
    kinds = (nn.ZeroPad2d, nn.ConstantPad2d)
    layers = dict(graph.named_modules())
    return [one for one in graph.graph.nodes if one.target is pad or isinstance(layers.get(str(one.target)), kinds)]


def inputs(size=16, count=8):
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(1, 3, size, size, generator=generator),) for _ in range(count)]


@pytest.mark.parametrize(("engine", "size", "left"), [("x86", 16, 0), ("x86", 17, 1), ("qnnpack", 16, 1)])
def test_a_folded_pad_computes_the_same(engine, size, left):
    graph, (feed, *_) = traced(Padded), inputs(size)
    wanted = graph(*feed)
    assert fold_pads(graph, feed, engine=engine) == 4 - left
    assert len(pads(graph)) == left
    assert tuple(graph.uneven.kernel_size) == ((3, 3) if left else (5, 5))
    assert torch.allclose(graph(*feed), wanted, atol=1e-6)


def test_pads_that_are_no_convolutions_own_stay():
    graph = traced(Kept)
    feed = (torch.randn(1, 4, 12, 12),)
    wanted, before = graph(*feed), len(pads(graph))
    # The one of nothing goes; for the rest there is no convolution that could take it.
    assert fold_pads(graph, feed, engine="x86") == 1
    assert len(pads(graph)) == before - 1
    assert torch.equal(graph(*feed), wanted)


@pytest.mark.parametrize("engine", ["x86", "qnnpack"])
def test_an_int8_network_pads_in_its_kernels(engine):
    torch.manual_seed(0)
    module = Padded().eval()
    made = torch_static.quantize_static(module, inputs()[0], inputs(), NAMED["int8"], engine)
    assert made.how == "graph"
    assert len(pads(made.module)) == (engine == "qnnpack")
    expected, found = ([outputs_of(net, feed) for feed in inputs()] for net in (module, made.module))
    assert worst_cosine(expected, found) > 0.98


def test_training_pads_in_the_layers_too():
    torch.manual_seed(0)
    assert len(pads(qat.prepare(Padded().eval(), inputs()[0], engine="x86"))) == 1
