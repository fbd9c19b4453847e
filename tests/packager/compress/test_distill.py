"""Distillation: every kind moves the student, the teacher stays, what does not match is told before anything is trained."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra")
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

from agent.contract.errors import UsageError  # noqa: E402
from packager import torch_models  # noqa: E402
from packager.compress.distill import Distillation, Feature, Relation, Response, check, distill, own_loop  # noqa: E402
from packager.compress.train import Training  # noqa: E402
from packager.compress.training_data import load_batches  # noqa: E402

NETS = Path(__file__).parent / "nets.py"
EXAMPLE = (torch.zeros(1, 1, 12, 12),)
FEED = load_batches(f"{NETS}:batches", ["input"])


def made(name):
    return torch_models.call_factory(f"{NETS}:{name}").module


@pytest.mark.parametrize(
    "how",
    [
        Distillation(),
        Distillation(Response(alpha=1.0)),
        Distillation(None, features=[Feature("0", "0")]),
        Distillation(None, relations=[Relation(), Relation("5", "5", 0.5)]),
        Distillation(Response(2.0, 0.5), [Feature("4", "4")], [Relation()]),
    ],
    ids=["response", "teacher only", "feature", "relation", "all"],
)
def test_every_kind_learns(how):
    student, teacher = made("made"), made("teacher")
    before = [value.clone() for value in teacher.state_dict().values()]
    losses = distill(student, teacher, EXAMPLE, FEED, how, Training(epochs=4, learning_rate=1e-2))
    assert losses[-1] < losses[0]
    assert all(torch.equal(old, new) for old, new in zip(before, teacher.state_dict().values(), strict=True))
    assert not student._forward_hooks


def test_a_teacher_whose_outputs_do_not_match():
    with pytest.raises(UsageError, match=r"teacher's output is \[1, 7\], the student's \[1, 4\]"):
        distill(made("made"), made("wrong_teacher"), EXAMPLE, FEED)


def test_a_teacher_of_another_input_size():
    teacher = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4)).eval()
    own = (torch.zeros(1, 1, 8, 8),)
    with pytest.raises(UsageError, match="teacher does not take the student's inputs") as caught:
        check(made("made"), teacher, EXAMPLE, Distillation(), factory="big.py:teacher", own=own)
    assert caught.value.exit_code == 2
    assert caught.value.where == "big.py:teacher"
    assert "1x1x12x12" in caught.value.expected
    assert "1x1x8x8" in caught.value.expected
    assert "interpolate" in caught.value.fix
    with pytest.raises(UsageError, match="teacher does not take") as caught:
        distill(made("made"), teacher, EXAMPLE, FEED)
    assert caught.value.where == "the teacher"


def test_a_layer_that_does_not_exist():
    how = Distillation(features=[Feature("convv", "0")])
    with pytest.raises(UsageError, match="no layer 'convv'") as caught:
        distill(made("made"), made("teacher"), EXAMPLE, FEED, how)
    assert caught.value.where == "student"


def test_a_temperature_that_makes_no_sense():
    with pytest.raises(UsageError, match="temperature 0"):
        distill(made("made"), made("teacher"), EXAMPLE, FEED, Distillation(Response(temperature=0)))


def test_ones_own_loop_gets_the_loss():
    student = made("made")
    with own_loop(student, made("teacher"), EXAMPLE, Distillation()) as loss:
        inputs, labels = next(iter(FEED(1)))
        value = loss(student(*inputs), labels, inputs)
    assert float(value.detach()) > 0
