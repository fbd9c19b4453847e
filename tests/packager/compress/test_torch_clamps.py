"""The ReLU6 trap: qnnpack's INT8 clamp on channels_last tensors, really wrong, and closed."""

import copy
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra")
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

from agent.contract.errors import ConvertError  # noqa: E402 - after the skip
from packager import torch_models  # noqa: E402
from packager.compress.quantize import torch_clamps, torch_dynamic, torch_proof, torch_static  # noqa: E402
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
        torch_proof.prove_graph(model, reference, feeds()[:4], "qnnpack")
    assert caught.value.code == "wrong-kernel"
    assert "qnnpack" in caught.value.what
    assert caught.value.where == "act_1"


def test_ours_is_right(made):
    result = torch_static.quantize_static(made.module, made.examples, feeds(), NAMED["int8"], "qnnpack")
    assert cosine(result.module, made.module) > 0.99
    assert [finding.code for finding in result.findings] == ["qnnpack-clamp"]


def test_on_x86_too_all_levels_lie_below_the_clamp(made):
    torch_dynamic.use_engine("x86")
    result = torch_static.quantize_static(made.module, made.examples, feeds(), NAMED["int8"], "x86")
    assert result.module.first.scale == pytest.approx(6 / 127, rel=0.01)
    assert result.findings == ()
    assert cosine(result.module, made.module) > 0.99


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


@pytest.mark.parametrize("engine", ["qnnpack", "x86"])
def test_right_kernels_are_off_by_rounding_only(made, engine):
    torch_dynamic.use_engine(engine)
    result = torch_static.quantize_static(made.module, made.examples, feeds(), NAMED["int8"], engine)
    layers = torch_static._by_layers(made.module, feeds(), NAMED["int8"], engine, "asked for")
    assert result.how == "graph"
    assert layers.how == "layers"
    proof = torch_proof.prove_layers(layers.module, feeds()[:4], engine)
    assert proof.operators == 3
    assert proof.steps < 0.1


def test_a_layer_with_wrong_integers_is_named(made):
    layers = torch_static._by_layers(made.module, feeds(), NAMED["int8"], "qnnpack", "asked for").module
    conv = next(
        one for one in layers.modules() if type(one).__name__ == "Conv2d" and "quantized" in type(one).__module__
    )
    original = conv.forward
    conv.forward = lambda x: torch.quantize_per_tensor(
        original(x).dequantize().roll(1, 1), conv.scale, conv.zero_point, torch.quint8
    )
    with pytest.raises(ConvertError) as caught:
        torch_proof.prove_layers(layers, feeds()[:2], "qnnpack")
    assert caught.value.code == "wrong-kernel"
    assert caught.value.where.endswith(".layer")


def test_where_the_whole_graph_is_wrong_layers_by_themselves_are_taken(made, monkeypatch):
    wrong = ConvertError("the INT8 kernels compute something else: relu6 is off by 40 steps", code="wrong-kernel")

    def refuse(*_):
        raise wrong

    monkeypatch.setattr(torch_static, "_by_graph", refuse)
    result = torch_static.quantize_static(made.module, made.examples, feeds(), NAMED["int8"], "qnnpack")
    assert result.how == "layers"
    assert "relu6 is off by 40 steps" in result.findings[0].message


def test_where_the_whole_graph_is_far_from_the_original_the_nearer_form_is_taken(made, monkeypatch):
    """Ranges of inputs fifty times smaller: whatever is INT8 saturates."""
    small = [(feed[0] * 0.02,) for feed in feeds()]
    by_graph = torch_static._by_graph
    monkeypatch.setattr(torch_static, "_by_graph", lambda graph, like, _, *rest: by_graph(graph, like, small, *rest))
    result = torch_static.quantize_static(made.module, made.examples, feeds(), NAMED["int8"], "qnnpack")
    assert result.how == "layers"
    assert "the whole graph in INT8 is at a cosine of" in result.findings[0].message


class Padded(torch.nn.Module):
    """Pads by the size of its input, as transformers' MobileNetV2 does: no symbolic graph without values."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, bias=False)
        self.norm = torch.nn.BatchNorm2d(4)

    def forward(self, x):
        if x.shape[2] != 16:
            raise ValueError("16 rows are wanted")
        odd = int(x.shape[2]) % 2
        return torch.nn.functional.relu6(self.norm(self.conv(torch.nn.functional.pad(x, (1, odd, 1, odd)))))


@pytest.mark.parametrize("engine", ["qnnpack", "x86"])
def test_what_goes_into_a_layer_before_a_clamp_is_not_capped(engine):
    """An input of 0 to 100, padded: its range is its own, not that of the ReLU6 two operators later."""
    module = Padded().eval()
    with torch.no_grad():
        module.conv.weight.div_(30)
    large = [(feed[0].abs() * 30,) for feed in feeds()]
    torch_dynamic.use_engine(engine)
    result = torch_static.quantize_static(module, large[0], large, NAMED["int8"], engine)
    assert result.how == "graph"
    wanted, found = ([outputs_of(one, feed) for feed in large] for one in (module, result.module))
    assert worst_cosine(wanted, found) > 0.99


class Deciding(Padded):
    def forward(self, x):
        return super().forward(x) if x.sum() > 0 else x


def test_a_module_that_reads_shapes_becomes_one_graph():
    module = Padded().eval()
    with pytest.raises(Exception, match=r"symbolically traced|int\(\)"):
        torch.fx.symbolic_trace(module)
    torch_dynamic.use_engine("qnnpack")
    result = torch_static.quantize_static(module, feeds()[0], feeds(), NAMED["int8"], "qnnpack")
    assert result.how == "graph"
    assert cosine(result.module, module) > 0.99


def test_a_module_that_reads_numbers_has_no_graph():
    result = torch_static.quantize_static(Deciding().eval(), feeds()[0], feeds(), NAMED["int8"], "x86")
    assert result.how == "layers"
