"""Fusion: transformer parts become one node, the numbers stay, and another result is refused."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra")
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

import onnx  # noqa: E402
from onnx import helper  # noqa: E402

from agent.contract.errors import ConvertError, UsageError  # noqa: E402
from packager import torch_models  # noqa: E402
from packager.compress import fuse  # noqa: E402
from tests.packager import models  # noqa: E402

NETS = Path(__file__).parent / "nets.py"
FEEDS = [{"x": np.random.default_rng(0).standard_normal((1, 6, 16)).astype(np.float32)}]


class Block(torch.nn.Module):
    """Attention as BERT writes it: behind a layer norm, three linear layers, heads by view and transpose."""

    def __init__(self):
        super().__init__()
        self.parts = torch.nn.ModuleList([torch.nn.Linear(16, 16) for _ in range(4)])
        self.zeroth, self.first, self.second = (torch.nn.LayerNorm(16) for _ in range(3))
        self.up, self.down = torch.nn.Linear(16, 32), torch.nn.Linear(32, 16)

    def forward(self, x):
        x = self.zeroth(x)
        query, key, value = (part(x).view(1, 6, 4, 4).permute(0, 2, 1, 3) for part in self.parts[:3])
        mixed = torch.softmax(query @ key.transpose(-1, -2) / 2.0, -1) @ value
        x = self.first(x + self.parts[3](mixed.permute(0, 2, 1, 3).reshape(1, 6, 16)))
        return self.second(x + self.down(torch.nn.functional.gelu(self.up(x))))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("fuse") / "block.onnx"
    torch.manual_seed(0)
    torch.onnx.export(
        Block().eval(),
        (torch.zeros(1, 6, 16),),
        str(path),
        dynamo=False,
        opset_version=14,
        input_names=["x"],
        output_names=["y"],
    )
    return path


def test_heads_and_hidden_size_are_read_from_the_graph(model):
    graph = onnx.load(model)
    assert fuse.infer_heads(graph) == 4
    assert fuse.infer_hidden(graph) == 16


def test_attention_layer_norms_and_gelu_are_fused_and_the_numbers_stay(model, tmp_path):
    done = fuse.fuse(model, tmp_path / "fused.onnx", FEEDS, measure_seconds=0)
    assert done.nodes_after < done.nodes_before / 3
    assert done.fused["Attention"] == 1
    assert (done.heads, done.hidden) == (4, 16)
    (attention,) = [node for node in onnx.load(tmp_path / "fused.onnx").graph.node if node.op_type == "Attention"]
    assert {one.name: one.i for one in attention.attribute}["num_heads"] == 4
    assert sum(done.fused.get(name, 0) for name in ("LayerNormalization", "SkipLayerNormalization")) == 3
    assert done.fused.get("Gelu", 0) + done.fused.get("BiasGelu", 0) == 1
    assert done.worst_cosine > 0.99999
    assert done.model_type


def test_a_fusion_that_computes_something_else_is_refused(model, tmp_path, monkeypatch):
    def broken(source, kind, heads, hidden):
        graph = onnx.load(source)
        weight = next(one for one in graph.graph.initializer if list(one.dims) == [16, 32])
        array = onnx.numpy_helper.to_array(weight) * 3
        weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
        return graph

    monkeypatch.setattr(fuse, "_optimised", broken)
    with pytest.raises(ConvertError, match="computes something else") as caught:
        fuse.fuse(model, tmp_path / "fused.onnx", FEEDS, model_type="bert", measure_seconds=0)
    assert caught.value.code == "fuse-parity"


def test_an_unknown_model_type(model, tmp_path):
    with pytest.raises(UsageError, match="did you mean 'bert'"):
        fuse.fuse(model, tmp_path / "fused.onnx", FEEDS, model_type="brt")


def test_a_net_without_a_transformer_is_only_folded(tmp_path):
    net = torch_models.call_factory(f"{NETS}:made").module
    torch.onnx.export(
        net, (torch.zeros(1, 1, 12, 12),), str(tmp_path / "cnn.onnx"), dynamo=False, input_names=["x"], opset_version=17
    )
    feed = [{"x": np.ones((1, 1, 12, 12), np.float32)}]
    done = fuse.fuse(tmp_path / "cnn.onnx", tmp_path / "fused.onnx", feed, measure_seconds=0.05)
    assert (done.model_type, done.fused) == ("", {})
    assert done.speed is not None


def test_hard_swish_is_joined_and_constants_go_into_convolutions(tmp_path):
    """As PP-LCNetV3 has it at an old opset: the curve as arithmetic, then a learned scale and shift."""
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c"], name="first"),
        helper.make_node("Add", ["c", "three"], ["c3"], name="plus"),
        helper.make_node("Clip", ["c3", "zero", "six"], ["gate"], name="clip"),
        helper.make_node("Mul", ["c", "gate"], ["cg"], name="gated"),
        helper.make_node("Div", ["cg", "six"], ["h"], name="sixth"),
        helper.make_node("Mul", ["scale", "h"], ["s"], name="scale"),
        helper.make_node("Add", ["s", "shift"], ["t"], name="shift"),
        helper.make_node("Conv", ["t", "w2"], ["y"], name="last"),
    ]
    numbers = {"three": 3, "zero": 0, "six": 6, "scale": 0.4, "shift": -0.2}
    constants = [
        *((name, np.array(value, np.float32)) for name, value in numbers.items()),
        ("w1", models.weights(4, 1, 3, 3, seed=1)),
        ("w2", models.weights(2, 4, 1, 1, seed=2)),
    ]
    shapes = [models.tensor("x", [1, 1, 12, 12])], [models.tensor("y", [1, 2, 10, 10])]
    path = models.save(tmp_path / "net.onnx", nodes, *shapes, constants)
    feed = [{"x": np.random.default_rng(0).standard_normal((1, 1, 12, 12)).astype(np.float32)}]
    done = fuse.fuse(path, tmp_path / "fused.onnx", feed, measure_seconds=0.05)
    assert done.fused == {"HardSwish": 1, "constants into convolutions": 2}
    assert (done.nodes_before, done.nodes_after) == (8, 3)
    assert "1 HardSwish, 2 constants into convolutions" in done.verdict
