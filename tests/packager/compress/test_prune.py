"""Pruning: what is gone stays gone, the saved state rebuilds the module, budgets stop it."""

import importlib.util
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra")
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

from agent.contract.errors import BudgetError, UsageError  # noqa: E402 - after the skip
from packager import torch_models  # noqa: E402
from packager.compress.prune import report as reports  # noqa: E402
from packager.compress.prune.layers import hold_zeros, named_module, prunable, sparsity  # noqa: E402
from packager.compress.prune.run import FineTuning, PruneOptions, load, prune, save  # noqa: E402
from packager.compress.prune.schedule import sparsities  # noqa: E402
from packager.compress.train import Training, fit, named_loss, trainer  # noqa: E402
from packager.compress.training_data import from_function  # noqa: E402

NETS = Path(__file__).parent / "nets.py"
nets = torch_models.import_named(str(NETS), "cnn"), torch_models.import_named(str(NETS), "batches")
EXAMPLE = (torch.zeros(1, 1, 12, 12),)
needs_torch_pruning = pytest.mark.skipif(
    importlib.util.find_spec("torch_pruning") is None, reason="needs the prune extra"
)


def accuracy(module):
    pictures, labels = torch_models.import_named(str(NETS), "images")()
    with torch.no_grad():
        return float((module.eval()(pictures).argmax(1) == labels).float().mean())


@pytest.fixture(scope="module")
def trained():
    net = nets[0]()
    how = Training(epochs=6, learning_rate=2e-2)
    fit(net, from_function(nets[1], ["input"]), named_loss("cross_entropy"), how)
    assert accuracy(net) > 0.9
    return net


def tuning(epochs=1):
    run = trainer(Training(epochs=epochs, learning_rate=5e-3))
    return FineTuning(run, from_function(nets[1], ["input"]), named_loss("cross_entropy"))


def test_schedules_end_at_the_goal():
    assert sparsities(0.8, "linear", 4) == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert sparsities(0.8, "cubic", 4) == pytest.approx([0.4625, 0.7, 0.7875, 0.8])
    assert sparsities(0.8) == [0.8]
    assert sparsities(0.0, [0.2, 0.5]) == [0.2, 0.5]


@pytest.mark.parametrize("bad", [1.2, 80, 1.0, 0.0, -0.1])
def test_a_schedule_above_100_percent(bad):
    with pytest.raises(UsageError, match="sparsity") as caught:
        sparsities(bad, "linear", 3)
    if bad == 80:
        assert "write 0.8" in caught.value.fix


def test_a_schedule_that_does_not_rise():
    with pytest.raises(UsageError, match="does not rise"):
        sparsities(0.5, [0.5, 0.3])


def test_a_layer_name_that_does_not_exist(trained):
    with pytest.raises(UsageError, match="no layer 'fisrt'") as caught:
        prunable(torch_models.call_factory(f"{NETS}:transformer").module, ["fisrt"])
    assert "'first'" in caught.value.expected
    with pytest.raises(UsageError) as caught:
        named_module(torch_models.call_factory(f"{NETS}:transformer").module, "qkv")
    assert "'attention.qkv'" in caught.value.expected


@pytest.mark.parametrize("method", ["l1", "l1-global"])
def test_masks_are_permanent_and_survive_fine_tuning(trained, method, tmp_path):
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    options = PruneOptions(method=method, sparsity=0.6, schedule="cubic", steps=2)
    done = prune(trained, EXAMPLE, options, fine_tuning=tuning(), score=accuracy)
    assert sparsity(done.module) == pytest.approx(0.6, abs=0.02)
    assert [share for share, _ in done.curve] == pytest.approx([0.525, 0.6])
    assert not any("mask" in name or "orig" in name for name in done.module.state_dict())
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())
    if method == "l1":
        assert all(
            float((one.weight == 0).float().mean()) == pytest.approx(0.6, abs=0.1)
            for one in prunable(done.module).values()
        )
    save(done, tmp_path / "state.pt")
    again = load(nets[0](), EXAMPLE, tmp_path / "state.pt")
    inputs = torch.randn(2, 1, 12, 12)
    assert torch.equal(again(inputs), done.module(inputs))


def test_zeros_are_held_in_later_training(trained):
    done = prune(trained, EXAMPLE, PruneOptions(sparsity=0.5))
    hold_zeros(done.module)
    fit(done.module, from_function(nets[1], ["input"]), named_loss("cross_entropy"), Training(epochs=1))
    assert sparsity(done.module) == pytest.approx(0.5, abs=0.01)


def test_the_budget_keeps_the_last_state_within_it(trained):
    options = PruneOptions(schedule=[0.1, 0.98])
    done = prune(trained, EXAMPLE, options, score=accuracy, max_drop=10.0)
    assert done.share == 0.1
    assert "at 98%" in done.stopped
    assert sparsity(done.module) == pytest.approx(0.1, abs=0.02)


def test_a_budget_that_cannot_be_met(trained):
    with pytest.raises(BudgetError, match="does not keep the budget") as caught:
        prune(trained, EXAMPLE, PruneOptions(sparsity=0.98), score=accuracy, max_drop=1.0)
    assert caught.value.exit_code == 6


@needs_torch_pruning
def test_channels_are_really_gone_and_the_export_is_smaller(trained, tmp_path):
    done = prune(trained, EXAMPLE, PruneOptions(method="structured", sparsity=0.5), fine_tuning=tuning())
    assert done.module[0].out_channels == 4
    assert done.module[3].groups == 4
    assert done.module[-1].out_features == 4  # the outputs stay
    save(done, tmp_path / "state.pt")
    again = load(nets[0](), EXAMPLE, tmp_path / "state.pt")
    inputs = torch.randn(2, 1, 12, 12)
    assert torch.equal(again(inputs), done.module(inputs))
    found = reports.report(trained, done.module, EXAMPLE, tmp_path, seconds=0.05)
    assert found.after.parameters < found.before.parameters
    assert found.after.macs < 0.6 * found.before.macs
    assert found.after.file_bytes < found.before.file_bytes


def test_a_mask_is_told_to_buy_no_speed(trained, tmp_path):
    done = prune(trained, EXAMPLE, PruneOptions(sparsity=0.8))
    found = reports.report(trained, done.module, EXAMPLE, tmp_path, seconds=0.05)
    assert found.after.macs == found.before.macs
    assert found.after.compressed_bytes < found.before.compressed_bytes
    assert "compressed" in found.verdict
    slow = reports.PruneReport(found.before, found.after, reports.Speed(1.0, 1.0, 1.0, (0.9, 1.1)))
    assert "this mask buys no speed" in slow.verdict


@needs_torch_pruning
def test_whole_heads_go(tmp_path):
    made = torch_models.call_factory(f"{NETS}:transformer")
    options = PruneOptions(
        method="structured", heads={"attention.qkv": 4}, exclude=("first", "narrow", "attention.proj", "wide")
    )
    done = prune(made.module, made.examples, options)
    assert done.module.attention.num_heads == 2
    assert done.module.attention.qkv.out_features == 48
    save(done, tmp_path / "state.pt")
    again = load(torch_models.call_factory(f"{NETS}:transformer").module, made.examples, tmp_path / "state.pt")
    assert torch.equal(again(*made.examples), done.module(*made.examples))


def test_a_saved_state_of_another_module(trained, tmp_path):
    save(prune(trained, EXAMPLE, PruneOptions()), tmp_path / "state.pt")
    with pytest.raises(UsageError, match="not the pruned state"):
        load(torch_models.call_factory(f"{NETS}:transformer").module, EXAMPLE, tmp_path / "state.pt")
