"""Heads of attention: found, split off torch's own module, and removed whole, so that the export is smaller."""

import importlib.util

import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra")
pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(importlib.util.find_spec("torch_pruning") is None, reason="needs the prune extra"),
]

from torch import nn  # noqa: E402 - after the skip

from agent.contract.errors import ConvertError, UsageError  # noqa: E402
from packager.compress.prune import attention, report  # noqa: E402
from packager.compress.prune.bound import bound_layers  # noqa: E402
from packager.compress.prune.run import PruneOptions, load, prune, save  # noqa: E402

EXAMPLE = (torch.randn(1, 6, 16, generator=torch.Generator().manual_seed(0)),)


class Apart(nn.Module):
    """Attention with a layer each for q, k and v, as written by hand."""

    def __init__(self, counted=True):
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(32, 32) for _ in range(4))
        self.heads, self.all_head_size, self.counted = (4 if counted else "four"), 32, counted

    def forward(self, x):
        shape = (x.shape[0], x.shape[1], self.heads if self.counted else 4, 8)
        q, k, v = (one(x).view(shape).transpose(1, 2) for one in (self.query, self.key, self.value))
        found = torch.softmax(q @ k.transpose(-2, -1) / 8**0.5, -1) @ v
        return self.out(found.transpose(1, 2).reshape(x.shape[0], x.shape[1], self.all_head_size))


class Net(nn.Module):
    def __init__(self, middle):
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(16, 32), middle, nn.Linear(32, 5)

    def forward(self, x):
        x = self.first(x)
        return self.last((x + self.middle(x)).mean(1))


def encoder(width=16):
    torch.manual_seed(0)
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(width, 8, 24, batch_first=True), 2)


def pruned(net, **options):
    return prune(net.eval(), EXAMPLE, PruneOptions(method="structured", **options))


@pytest.mark.parametrize("made", [{"batch_first": True}, {}, {"kdim": 5, "vdim": 7, "bias": False}])
def test_the_split_computes_the_same(made):
    torch.manual_seed(0)
    holder = nn.ModuleDict({"a": nn.MultiheadAttention(16, 4, **made)}).eval()
    sizes = (16, made.get("kdim", 16), made.get("vdim", 16))
    query, key, value = (torch.randn(3, 3, size) for size in sizes)
    masks = {"attn_mask": torch.ones(3, 3).triu(1).bool(), "key_padding_mask": torch.tensor([[False, False, True]] * 3)}
    with torch.no_grad():
        before = [holder["a"](query, key, value, **some) for some in ({}, masks)]
        each = holder["a"](
            query, key, value, attn_mask=torch.randn(12, 3, 3, generator=torch.Generator().manual_seed(1))
        )
        alone = holder["a"](query[0], key[0], value[0])
        attention.split(holder, attention.splittable(holder))
        after = [holder["a"](query, key, value, **some) for some in ({}, masks)]
        each_after = holder["a"](
            query, key, value, attn_mask=torch.randn(12, 3, 3, generator=torch.Generator().manual_seed(1))
        )
        alone_after = holder["a"](query[0], key[0], value[0])
    for old, new in zip([*before, each, alone], [*after, each_after, alone_after], strict=True):
        assert torch.allclose(old[0], new[0], atol=1e-6)
        assert torch.allclose(old[1], new[1], atol=1e-6)


def test_heads_of_torchs_own_layers_go_and_the_export_is_smaller(tmp_path):
    net = nn.Sequential(nn.Linear(16, 16), encoder(), nn.Flatten(), nn.Linear(96, 5)).eval()
    done = pruned(net, exclude=("0",))
    assert done.attention == {f"1.layers.{index}.self_attn": (8, 4) for index in (0, 1)}
    assert done.module[1].layers[0].self_attn.q_proj.out_features == 8
    assert isinstance(net[1].layers[0].self_attn, nn.MultiheadAttention)
    save(done, tmp_path / "state.pt")
    assert torch.equal(load(net, EXAMPLE, tmp_path / "state.pt")(*EXAMPLE), done.module(*EXAMPLE))
    found = report.report(net, done.module, EXAMPLE, tmp_path, seconds=0.02)
    assert found.after.file_bytes < found.before.file_bytes
    assert found.after.macs < found.before.macs


def test_heads_of_a_hand_written_attention_are_found(tmp_path):
    torch.manual_seed(0)
    net = Net(Apart()).eval()
    done = pruned(net, exclude=("first",))
    assert done.attention == {"middle": (4, 2)}
    assert (done.module.middle.heads, done.module.middle.all_head_size) == (2, 16)
    assert done.module.middle.value.out_features == 16
    save(done, tmp_path / "state.pt")
    assert torch.equal(load(net, EXAMPLE, tmp_path / "state.pt")(*EXAMPLE), done.module(*EXAMPLE))


def test_the_same_heads_go_from_q_k_and_v():
    torch.manual_seed(0)
    net = Net(Apart()).eval()
    with torch.no_grad():
        for layer in (net.middle.query, net.middle.key, net.middle.value):
            layer.weight[8:24] *= 1e-3  # heads 1 and 2 say nothing
        net.middle.out.weight[:, 8:24] *= 1e-3
    kept = pruned(net, layers=("middle",), exclude=("middle.out",)).module.middle
    rows = [*range(8), *range(24, 32)]
    for name in ("query", "key", "value"):
        assert torch.equal(getattr(kept, name).weight, getattr(net.middle, name).weight[rows])


@pytest.mark.parametrize(("shares", "left"), [([0.25, 0.5], 4), ([0.1, 0.3, 0.5, 0.75], 2), ([0.99], 1)])
def test_steps_take_no_more_heads_than_asked_for(shares, left):
    net = nn.Sequential(nn.Linear(16, 16), encoder(), nn.Flatten(), nn.Linear(96, 5))
    done = pruned(net, schedule=shares, layers=("1.layers.0.self_attn",))
    assert done.attention == {"1.layers.0.self_attn": (8, left)}


def test_what_is_added_to_an_input_stays_as_wide():
    net = nn.Sequential(encoder(), nn.Flatten(), nn.Linear(96, 5)).eval()
    assert {net[2], net[0].layers[0].linear2} <= bound_layers(net, EXAMPLE)
    done = pruned(net)
    assert done.module[0].layers[0].linear1.out_features == 12
    assert done.module[0].layers[0].linear2.out_features == 16


def test_a_wrong_number_of_heads_and_what_has_none():
    with pytest.raises(UsageError, match="middle has 4 heads, not 8"):
        pruned(Net(Apart()), heads={"middle": 8})
    with pytest.raises(ConvertError, match="no attention heads are known in 'first'") as caught:
        pruned(Net(Apart()), heads={"first": 5})
    assert "found by themselves in: middle" in caught.value.expected
    with pytest.raises(UsageError, match="no layer 'midle'"):
        pruned(Net(Apart()), heads={"midle": 4})


def test_a_forward_that_counts_by_itself_is_told_what_to_do():
    with pytest.raises(ConvertError, match="once pruned, the module does not run") as caught:
        pruned(Net(Apart(counted=False)))
    assert "num_heads" in caught.value.fix
