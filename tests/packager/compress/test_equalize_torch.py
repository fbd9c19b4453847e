"""Equalisation and bias correction of an exported graph: what they promise, on a convolution or two."""

import dataclasses

import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra")
from torch import nn  # noqa: E402 - after the skip

from packager.compress.equalize_torch import correct_biases, equalize, weight_shifts  # noqa: E402
from packager.compress.quantize.onnx_correction import rounded  # noqa: E402
from packager.compress.smooth_torch import smooth  # noqa: E402
from packager.recipe import NAMED  # noqa: E402


def net(act, *, depthwise=False, bias=True):
    torch.manual_seed(0)
    middle = nn.Conv2d(8, 8, 3, groups=8 if depthwise else 1, bias=bias)
    made = nn.Sequential(nn.Conv2d(3, 8, 1, bias=bias), act, middle, nn.ReLU(), nn.Conv2d(8, 4, 1, bias=bias)).eval()
    with torch.no_grad():
        made[0].weight *= torch.logspace(-1, 1, 8).reshape(-1, 1, 1, 1)
    return made


def graph_of(module):
    return torch.export.export(module, (torch.zeros(1, 3, 8, 8),)).module()


def samples(count=16):
    return [(one,) for one in torch.randn(count, 1, 3, 8, 8, generator=torch.Generator().manual_seed(1))]


def spread(weight):
    wide = weight.detach().flatten(1).abs().amax(1)
    return float(wide.max() / wide.min())


@pytest.mark.parametrize("depthwise", [False, True])
def test_channels_share_their_ranges_and_a_relu_net_computes_the_same(depthwise):
    module = net(nn.ReLU(), depthwise=depthwise)
    graph = graph_of(module)
    assert equalize(graph, samples()) == 2
    after = dict(graph.named_parameters())["0.weight"]
    assert spread(after) < spread(module[0].weight) / 4
    with torch.no_grad():
        for feed in samples(3):
            assert torch.allclose(graph(*feed), module(*feed), atol=1e-5)


@pytest.mark.parametrize("depthwise", [False, True])
def test_smoothed_channels_are_as_wide_as_one_another_and_the_net_computes_the_same(depthwise):
    module = net(nn.ReLU(), depthwise=depthwise)
    with torch.no_grad():
        module[0].bias *= torch.logspace(-1, 1, 8)
        axis = 0 if depthwise else 1
        module[2].weight /= torch.logspace(-1, 1, 8).reshape([-1 if place == axis else 1 for place in range(4)])
    graph = graph_of(module)
    assert smooth(graph, samples()) >= 1

    def widths(parts):
        with torch.no_grad():
            return torch.stack([parts(feed[0]) for feed in samples()]).amax((0, 1, 3, 4))

    first = dict(graph.named_parameters())
    now = widths(lambda x: nn.functional.conv2d(x, first["0.weight"], first["0.bias"]).relu())
    before = widths(module[:2])
    assert now.max() / now.min() < before.max() / before.min() / 4
    with torch.no_grad():
        for feed in samples(3):
            assert torch.allclose(graph(*feed), module(*feed), atol=1e-5)


@pytest.mark.parametrize("act", [nn.ReLU6(), nn.Sigmoid()])
def test_smoothing_leaves_alone_what_does_not_scale(act):
    module = net(act)
    graph = graph_of(module)
    smooth(graph, samples())
    assert torch.equal(dict(graph.named_parameters())["0.weight"], module[0].weight)


@pytest.mark.parametrize("inplace", [False, True])
def test_a_relu6_between_becomes_a_relu(inplace):
    graph = graph_of(net(nn.ReLU6(inplace=inplace)))
    assert equalize(graph, samples()) == 2
    assert not [node for node in graph.graph.nodes if "hardtanh" in str(node.target)]
    graph(*samples(1)[0])


class Residual(nn.Module):
    """A sum with a short cut, a pool, a mean over places, a linear layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.pool, self.last = nn.MaxPool2d(2), nn.Linear(8, 4)
        with torch.no_grad():
            self.first.weight *= torch.logspace(-1, 1, 8).reshape(-1, 1, 1, 1)

    def forward(self, x):
        x = self.pool(self.first(x).relu())
        return self.last((x + self.second(x)).mean((2, 3)))


@pytest.mark.parametrize("cure", [equalize, smooth])
def test_channels_are_scaled_over_pools_sums_and_means(cure):
    module = Residual().eval()
    graph = graph_of(module)
    assert cure(graph, samples()) == 1  # all of them are one group, for the sum's sake
    assert not torch.equal(dict(graph.named_parameters())["last.weight"], module.last.weight)
    with torch.no_grad():
        for feed in samples(3):
            assert torch.allclose(graph(*feed), module(*feed), atol=1e-4)


def test_nothing_is_scaled_across_what_does_not_scale():
    graph = graph_of(net(nn.Sigmoid()))
    assert equalize(graph, samples()) == 1


def test_a_weight_that_two_layers_share_is_left():
    module = net(nn.ReLU())
    module[4] = nn.Conv2d(8, 8, 3)
    module[4].weight = module[2].weight
    graph = graph_of(module)
    assert equalize(graph, samples()) == 0


@pytest.mark.parametrize("bias", [False, True])
def test_a_corrected_layer_with_rounded_weights_keeps_its_mean(bias):
    module, recipe = (
        net(nn.ReLU(), bias=bias),
        dataclasses.replace(NAMED["int8"], weight_type="int8", per_channel=False),
    )
    graph, plain = graph_of(module), graph_of(module)
    shifts = weight_shifts(graph, samples(), recipe)
    correct_biases(graph, {**shifts}, lambda node: node.name != "conv2d")
    with torch.no_grad():
        was = torch.stack([plain_first(plain, feed) for feed in samples()]).mean((0, 1, 3, 4))
        weight = module[0].weight.clone()
        weight.copy_(torch.from_numpy(rounded(weight.numpy(), recipe, axis=0)))
        name = next(node.args[2].target for node in graph.graph.nodes if node.name == "conv2d")
        inputs = torch.cat([feed[0] for feed in samples()])
        blind = nn.functional.conv2d(inputs, weight, module[0].bias).mean((0, 2, 3))
        now = nn.functional.conv2d(inputs, weight, getattr(graph, name)).mean((0, 2, 3))
    assert (now - was).abs().max() < 1e-5 < (blind - was).abs().max()
    assert sum("corrected" in name for name, _ in graph.named_buffers()) == 1  # the others were to be skipped


def plain_first(graph, feed):
    """What the first convolution of an untouched graph gives."""
    seen = {}

    class Looking(torch.fx.Interpreter):
        def run_node(self, n):
            seen[n.name] = super().run_node(n)
            return seen[n.name]

    Looking(graph).run(*feed)
    return seen["conv2d"]
