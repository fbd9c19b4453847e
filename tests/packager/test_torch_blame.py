"""The layer that made an operator which a converter does not know, and what could stand in its place."""

import pytest

from packager.torch_blame import instead_of, layers_of, operator_in

torch = pytest.importorskip("torch")


class Measure(torch.nn.Module):
    def forward(self, x):
        return torch.linalg.det(x)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Sequential(torch.nn.Linear(4, 4), Measure())

    def forward(self, matrix):
        return self.head(matrix)


@pytest.mark.parametrize(
    ("told", "operator"),
    [
        ("Lowering not found: aten._linalg_det.default", "linalg_det"),
        ("torch.ops.aten.nonzero.default", "nonzero"),
        ("aten::col2im", "col2im"),
        ("out of memory", ""),
    ],
)
def test_operator_is_read_from_the_converters_words(told, operator):
    assert operator_in(told) == operator


def test_layer_is_found_under_the_decomposed_operators_name():
    assert layers_of("linalg_det", Net(), (torch.eye(4)[None],)) == ["head.1"]


class Spectrum(torch.nn.Module):
    def forward(self, x):
        return torch.linalg.eigvals(x).real


def test_layer_is_found_whose_operator_decomposes_into_another():
    net = torch.nn.Sequential(torch.nn.Linear(4, 4), Spectrum())
    assert layers_of("linalg_eig", net, (torch.eye(4)[None],)) == ["1"]


def test_nothing_is_said_of_a_module_that_does_not_trace():
    assert layers_of("linalg_det", Net(), ("no tensor",)) == []


def test_replacement_is_told():
    assert "reshape and a permute" in instead_of("col2im")
    assert "cosines" in instead_of("fft_r2c")
    assert "arithmetic" in instead_of("something_new")
