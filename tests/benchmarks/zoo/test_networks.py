"""PyTorch sources of cases, as edgepack loads them."""

import pytest

from benchmarks.zoo.case import Case
from packager import torch_models


@pytest.mark.torch
@pytest.mark.parametrize("name", ["fashion-cnn", "fashion-dscnn", "fashion-teacher"])
def test_a_case_holds_a_network_that_edgepack_loads(tmp_path, name):
    from benchmarks.zoo.networks import fashion_nets

    case = Case(tmp_path / name)
    net = fashion_nets.Net(fashion_nets.NETS[name]()).eval()
    case.network(fashion_nets, net)
    made = torch_models.call_factory(f"{case.folder / 'model.py'}:build")
    assert made.module(*made.examples).tolist() == net(*made.examples).tolist()


@pytest.mark.torch
def test_the_encoder_does_not_see_what_is_padding(monkeypatch):
    import torch

    from benchmarks.zoo.networks import sentence_encoder

    monkeypatch.setattr(sentence_encoder, "TOKENS", 50)
    monkeypatch.setattr(sentence_encoder, "LAYERS", 2)
    torch.manual_seed(0)
    net, length = sentence_encoder.Encoder().eval(), sentence_encoder.LENGTH
    ids = torch.randint(0, 50, (2, length))
    ids[1, :5] = ids[0, :5]
    mask = torch.zeros(2, length, dtype=torch.int64)
    mask[:, :5] = 1
    with torch.no_grad():
        one, other = net(ids, mask)
        (whole,) = net(ids[:1], torch.ones(1, length, dtype=torch.int64))
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(one.norm(), torch.tensor(1.0))
    assert (one - whole).abs().max() > 0.01
