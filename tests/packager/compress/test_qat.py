"""Quantisation-aware training: learned ranges, kept through every form."""

import copy
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra")
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

from agent.contract.errors import ConvertError, UsageError  # noqa: E402 - after the skip
from packager import torch_models  # noqa: E402
from packager.compress import qat, qdq  # noqa: E402
from packager.compress.quantize import torch_static  # noqa: E402
from packager.torch_compare import outputs_of, worst_cosine  # noqa: E402

NETS = Path(__file__).parents[2] / "targets" / "nets.py"


@pytest.fixture(scope="module")
def made():
    return torch_models.call_factory(f"{NETS}:clamped")


@pytest.fixture(scope="module")
def trained(made):
    prepared = qat.prepare(made.module, made.examples)
    torch_models.import_named(str(NETS), "train")(prepared)
    return prepared


def feeds():
    generator = torch.Generator().manual_seed(7)
    return [(torch.randn(1, 3, 16, 16, generator=generator),) for _ in range(4)]


def cosine(model, other):
    return worst_cosine([outputs_of(model, feed) for feed in feeds()], [outputs_of(other, feed) for feed in feeds()])


def test_preparing_leaves_the_users_module_alone(made):
    before = copy.deepcopy(made.module.state_dict())
    prepared = qat.prepare(made.module, made.examples)
    assert prepared.training
    assert not made.module.training
    assert qat.engine_of(prepared) == "qnnpack"
    assert all(torch.equal(value, before[key]) for key, value in made.module.state_dict().items())


def test_training_moves_the_weights_and_ends_frozen(made, trained):
    assert not trained.training
    old = dict(made.module.named_parameters())
    moved = [name for name, value in trained.named_parameters() if name in old and not torch.equal(value, old[name])]
    assert "head.weight" in moved
    first = outputs_of(trained, feeds()[0])
    outputs_of(trained, (torch.full((1, 3, 16, 16), 1e6),))
    assert torch.equal(outputs_of(trained, feeds()[0])[0], first[0])  # an outlier no longer moves a range


@pytest.mark.parametrize(("norms_at", "still"), [(0.0, True), (2 / 3, False)])
def test_batch_norm_statistics_stand_still_from_the_epoch_asked_for(made, norms_at, still):
    prepared = qat.prepare(made.module, made.examples)
    batch = torch.cat([feed[0] for feed in feeds()])

    def mean():
        return next(value.clone() for key, value in prepared.state_dict().items() if key.endswith("running_mean"))

    before = mean()
    qat.train(prepared, lambda: [(batch, torch.zeros(4, 1))], lambda found, _: found.square().mean(), norms_at=norms_at)
    assert torch.equal(before, mean()) is still


def test_a_large_input_is_not_capped_by_the_clamp_behind_the_layer(made):
    prepared = qat.prepare(made.module, made.examples)
    batch = torch.cat([feed[0] for feed in feeds()]) * 30
    qat.train(
        prepared, lambda: [(batch, None)] * 3, lambda found, _: found.square().mean(), learning_rate=0.0, norms_at=0
    )
    assert worst_cosine([outputs_of(made.module, (batch,))], [outputs_of(prepared, (batch,))]) > 0.98


def test_the_x86_kernels_compute_what_was_trained(made):
    prepared = qat.prepare(made.module, made.examples, engine="x86")
    torch_models.import_named(str(NETS), "train")(prepared)
    assert cosine(torch_static.convert_prepared(prepared, feeds(), "x86").module, prepared) > 0.999


def test_the_int8_kernels_compute_what_was_trained(trained):
    result = torch_static.convert_prepared(trained, feeds(), "qnnpack")
    assert cosine(result.module, trained) > 0.999


def test_explicit_qdq_computes_what_was_trained_and_holds_integers(trained):
    module = qdq.as_qdq(trained)
    assert cosine(module, trained) > 0.999
    kinds = {str(value.dtype) for name, value in module.named_buffers() if name.endswith("integers")}
    assert kinds == {"torch.int8"}
    exported = torch.export.export(module, feeds()[0])
    names = [str(node.target) for node in exported.graph.nodes]
    assert sum("quantize_per_tensor" in name for name in names) > 4
    assert sum("dequantize_per_channel" in name for name in names) == 3


def test_saving_and_loading_keeps_the_numbers(made, trained, tmp_path):
    path = tmp_path / "trained.pt"
    qat.save(trained, path)
    again = qat.load(made.module, made.examples, path)
    assert torch.equal(outputs_of(again, feeds()[0])[0], outputs_of(trained, feeds()[0])[0])
    assert torch_models.is_quantized(again)


@pytest.mark.parametrize("fault", ["not-there", "garbage", "another-module", "runs-code"])
def test_a_state_that_does_not_fit_is_refused(made, trained, tmp_path, fault):
    path = tmp_path / "state.pt"
    module, examples = made.module, made.examples
    if fault == "garbage":
        path.write_bytes(b"no state")
    elif fault == "another-module":
        qat.save(trained, path)
        module, examples = torch.nn.Sequential(torch.nn.Linear(4, 4)), (torch.ones(1, 4),)
    elif fault == "runs-code":
        torch.save({"engine": "qnnpack", "per_channel": True, "state": print}, str(path))
    with pytest.raises(UsageError) as caught:
        qat.load(module, examples, path)
    assert caught.value.code == "qat-state"


def test_training_without_data_is_refused(made):
    prepared = qat.prepare(made.module, made.examples)
    with pytest.raises(UsageError, match="empty"):
        qat.train(prepared, list, torch.nn.functional.cross_entropy)


def test_weights_that_ran_away_are_refused(made):
    prepared = qat.prepare(made.module, made.examples)
    with torch.no_grad():
        prepared.head.weight.fill_(float("nan"))
    with pytest.raises(UsageError, match="NaN"):
        qat.finish(prepared)


def test_control_flow_is_refused():
    branch = torch_models.call_factory(f"{NETS}:branch")
    with pytest.raises(ConvertError) as caught:
        qat.prepare(branch.module, branch.examples)
    assert caught.value.code == "not-traceable"
