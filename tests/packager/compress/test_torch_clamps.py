"""The ReLU6 trap: qnnpack's INT8 clamp on channels_last tensors, really wrong, and closed."""

import copy
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra")
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

from agent.contract.errors import ConvertError  # noqa: E402 - after the skip
from packager import torch_models  # noqa: E402
from packager.compress.quantize import torch_clamps, torch_dynamic, torch_static  # noqa: E402
from packager.recipe import NAMED  # noqa: E402
from packager.torch_compare import outputs_of, worst_cosine  # noqa: E402

NETS = Path(__file__).parents[2] / "targets" / "nets.py"


@pytest.fixture
def made():
    torch_dynamic.use_engine("qnnpack")
    return torch_models.call_factory(f"{NETS}:clamped")


def feeds():
    generator = torch.Generator().manual_seed(7)
    return [(torch.randn(1, 3, 16, 16, generator=generator),) for _ in range(16)]


def plain(made):
    """What PyTorch's own flow makes of the model: no guard."""
    from torch.ao.quantization import get_default_qconfig_mapping, quantize_fx

    prepared = quantize_fx.prepare_fx(copy.deepcopy(made.module), get_default_qconfig_mapping("qnnpack"), made.examples)
    for feed in feeds():
        prepared(*feed)
    reference = quantize_fx.convert_to_reference_fx(copy.deepcopy(prepared))
    return quantize_fx.convert_fx(prepared), reference


def cosine(model, other):
    return worst_cosine([outputs_of(model, feed) for feed in feeds()], [outputs_of(other, feed) for feed in feeds()])


@pytest.mark.parametrize("clamp", ["clamp", "relu6", "hardtanh"])
def test_the_kernel_is_wrong_on_channels_last_and_right_on_contiguous_tensors(clamp):
    torch_dynamic.use_engine("qnnpack")
    run = {
        "clamp": lambda one: torch.clamp(one, 0, 6),
        "relu6": torch.nn.functional.relu6,
        "hardtanh": lambda one: torch.nn.functional.hardtanh(one, 0, 6),
    }[clamp]
    values = torch.quantize_per_tensor(torch.arange(-36.0, 36.0).reshape(1, 8, 3, 3) / 4, 0.1, 128, torch.quint8)
    wanted = values.dequantize().clamp(0, 6)
    turned = values.contiguous(memory_format=torch.channels_last)
    assert (run(turned).dequantize() - wanted).abs().max() > 1
    assert (run(turned.contiguous()).dequantize() - wanted).abs().max() < 0.1


def test_pytorchs_own_flow_gives_a_wrong_model_and_the_proof_refuses_it(made):
    model, reference = plain(made)
    assert cosine(reference, made.module) > 0.99
    assert cosine(model, made.module) < 0.95
    with pytest.raises(ConvertError) as caught:
        torch_static.prove_kernels(model, reference, feeds(), "qnnpack")
    assert caught.value.code == "wrong-kernel"
    assert "qnnpack" in caught.value.what


def test_ours_is_right(made):
    result = torch_static.quantize_static(made.module, made.examples, feeds(), NAMED["int8"], "qnnpack")
    assert cosine(result.module, made.module) > 0.99
    assert [finding.code for finding in result.findings] == ["qnnpack-clamp"]


def test_guarding_alone_cures_the_wrong_model(made):
    model, reference = plain(made)
    assert torch_clamps.guard_clamps(model) == 3
    assert cosine(model, reference) > 0.999


def test_absorbing_takes_clamps_after_layers_and_leaves_others(made):
    graph = torch.fx.symbolic_trace(copy.deepcopy(made.module))
    caps = torch_clamps.absorb_clamps(graph)
    assert caps == {
        "first": 6.0,
        "norm": 6.0,
        "second": 6.0,
        "absorbed_relu_0": 6.0,
        "absorbed_relu_1": 6.0,
    }
    assert any(node.target is torch.nn.functional.hardtanh for node in graph.graph.nodes)


def test_a_layer_whose_output_is_used_twice_is_left_alone():
    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 1, 1)

        def forward(self, x):
            found = self.conv(x)
            return torch.nn.functional.relu6(found) + found

    assert torch_clamps.absorb_clamps(torch.fx.symbolic_trace(Twice())) == {}


@pytest.mark.parametrize("method", ["int8", "int8-entropy", "int8-percentile", "int8-per-tensor"])
@pytest.mark.parametrize("engine", ["qnnpack", "x86"])
def test_every_method_on_every_engine(made, method, engine):
    result = torch_static.quantize_static(made.module, made.examples, feeds(), NAMED[method], engine)
    assert cosine(result.module, made.module) > 0.97
    assert result.how == "graph"


@pytest.mark.parametrize("scale", [1.0, 0.0])
def test_where_the_whole_graph_is_wrong_layers_by_themselves_are_tried_and_proven(made, monkeypatch, scale):
    wrong = ConvertError("the INT8 kernels compute something else: cosine 0.6", code="wrong-kernel")

    def refuse(*_):
        raise wrong

    monkeypatch.setattr(torch_static, "_by_graph", refuse)
    calibration = [(feed[0] * scale,) for feed in feeds()]  # ranges of nothing but zeros: INT8 is far from the original
    if scale:
        result = torch_static.quantize_static(made.module, made.examples, calibration, NAMED["int8"], "qnnpack")
        assert result.how == "layers"
        assert "cosine 0.6" in result.findings[0].message
    else:
        monkeypatch.setattr(torch_static, "_NEAR", 1.1)
        with pytest.raises(ConvertError) as caught:
            torch_static.quantize_static(made.module, made.examples, calibration, NAMED["int8"], "qnnpack")
        assert caught.value is wrong
