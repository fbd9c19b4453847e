"""The loop: the same seed gives the same weights, cut off or not; bad data is told."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra")
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

from pathlib import Path  # noqa: E402

from agent.contract.errors import UsageError  # noqa: E402
from packager import torch_models  # noqa: E402
from packager.compress.prune.run import FineTuning, PruneOptions, prune  # noqa: E402
from packager.compress.train import Training, fit, named_loss, own_trainer, trainer  # noqa: E402
from packager.compress.training_data import from_arrays, from_function, load_batches  # noqa: E402

NETS = Path(__file__).parent / "nets.py"
cnn, images, batches = (torch_models.import_named(str(NETS), name) for name in ("cnn", "images", "batches"))
HOW = Training(epochs=4, learning_rate=1e-2)


def weights(module):
    return torch.cat([value.flatten() for value in module.parameters()]).detach()


def run(**options):
    net = cnn()
    history = fit(net, load_batches(f"{NETS}:batches", ["input"]), named_loss("cross_entropy"), HOW, **options)
    return net, history


def test_the_same_seed_gives_the_same_weights():
    (left, one), (right, two) = run(), run()
    assert torch.equal(weights(left), weights(right))
    assert one == two
    assert one[-1] < one[0]


def test_a_run_that_was_cut_off_ends_like_one_that_was_not(tmp_path):
    whole, history = run()
    _, first = run(checkpoint=tmp_path / "c.pt", callbacks=[lambda epoch: epoch.number == 2])
    assert len(first) == 2
    resumed, second = run(checkpoint=tmp_path / "c.pt")
    assert second == history
    assert torch.equal(weights(whole), weights(resumed))


def test_each_step_of_a_schedule_has_a_checkpoint_of_its_own(tmp_path):
    def pruned(**options):
        tuning = FineTuning(
            trainer(Training(epochs=2), **options),
            load_batches(f"{NETS}:batches", ["input"]),
            named_loss("cross_entropy"),
        )
        steps = PruneOptions("l1", 0.6, "linear", 2)
        return prune(cnn(), (torch.zeros(1, 1, 12, 12),), steps, fine_tuning=tuning).module

    def stop(epoch):
        stops.append(epoch)
        if len(stops) == 3:
            raise KeyboardInterrupt

    stops = []
    whole = pruned()
    with pytest.raises(KeyboardInterrupt):
        pruned(checkpoint=tmp_path / "c.pt", callbacks=[stop])
    assert {one.name for one in tmp_path.iterdir()} == {"c.pt", "c-2.pt"}
    resumed = pruned(checkpoint=tmp_path / "c.pt", callbacks=[stop])
    assert len(stops) == 4  # three epochs were done before
    assert torch.equal(weights(whole), weights(resumed))


def test_a_checkpoint_of_other_options(tmp_path):
    run(checkpoint=tmp_path / "c.pt")
    with pytest.raises(UsageError, match="other options"):
        fit(
            cnn(),
            load_batches(f"{NETS}:batches", ["input"]),
            named_loss("cross_entropy"),
            Training(epochs=4, learning_rate=3.0),
            checkpoint=tmp_path / "c.pt",
        )
    other = cnn()
    with torch.no_grad():
        other[0].weight += 1
    with pytest.raises(UsageError, match="began with other weights"):
        fit(
            other,
            load_batches(f"{NETS}:batches", ["input"]),
            named_loss("cross_entropy"),
            HOW,
            checkpoint=tmp_path / "c.pt",
        )
    (tmp_path / "bad.pt").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="not a checkpoint"):
        run(checkpoint=tmp_path / "bad.pt")


def test_arrays_from_a_file(tmp_path):
    pictures, labels = images()
    np.savez(tmp_path / "train.npz", input=pictures.numpy(), labels=labels.numpy())
    feed = load_batches(str(tmp_path / "train.npz"), ["input"], batch=50)
    one, two, other = list(feed(1)), list(feed(1)), list(feed(2))
    assert [len(row[1]) for row in one] == [50, 50, 28]
    assert torch.equal(one[0][1], two[0][1])
    assert not torch.equal(one[0][1], other[0][1])


def test_data_that_does_not_fit():
    with pytest.raises(UsageError, match="unknown input"):
        from_arrays({"imgae": np.zeros((2, 1)), "labels": np.zeros(2)}, ["image"])
    with pytest.raises(UsageError, match="differ in length"):
        from_arrays({"image": np.zeros((2, 1)), "labels": np.zeros(3)}, ["image"])
    with pytest.raises(UsageError, match="no such training data"):
        load_batches("nothing.npz", ["image"])
    with pytest.raises(UsageError, match="lacks the input"):
        list(from_function(lambda: [{"other": torch.zeros(1)}], ["image"])(1))
    with pytest.raises(UsageError, match="raised ZeroDivisionError"):
        list(from_function(lambda: 1 / 0, ["image"])(1))


def test_an_empty_epoch_and_a_loss_that_is_nan():
    with pytest.raises(UsageError, match="empty"):
        fit(cnn(), lambda _epoch: [], named_loss("cross_entropy"), HOW)
    bad = [((torch.full((4, 1, 12, 12), float("nan")),), torch.zeros(4, dtype=torch.long))]
    with pytest.raises(UsageError, match="the loss is nan"):
        fit(cnn(), lambda _epoch: bad, named_loss("cross_entropy"), HOW)


def test_ones_own_loop(tmp_path):
    text = "def loop(module, batches, loss):\n    import torch\n    for inputs, labels in batches(1):\n"
    text += "        loss(module(*inputs), labels, inputs).backward()\n    module[-1].bias.data += 5\n"
    (tmp_path / "mine.py").write_text(text)
    net = cnn()
    before = net[-1].bias.detach().clone()
    own_trainer(f"{tmp_path / 'mine.py'}:loop")(net, from_function(batches, ["input"]), named_loss("cross_entropy"))
    assert torch.allclose(net[-1].bias, before + 5)
