"""A module scored with the same metrics as everything else."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra")
pytestmark = [pytest.mark.torch]

from agent.contract.errors import UsageError  # noqa: E402
from agent.contract.manifest import TensorSpec  # noqa: E402
from packager.accuracy.module_score import module_scorer  # noqa: E402
from packager.recipe_steps import Budget  # noqa: E402

INPUTS = [TensorSpec("x", "float32", [1, 3])]


def samples(path, **arrays):
    np.savez(path, x=np.eye(3, dtype=np.float32)[[0, 1, 2, 0]], **arrays)
    return str(path)


def test_top1_of_a_module(tmp_path):
    data = samples(tmp_path / "e.npz", labels=np.array([0, 1, 2, 1]))
    score = module_scorer(Budget(data), INPUTS, ["y"])
    assert score(torch.nn.Identity()) == 0.75


def test_agreement_is_with_the_first_module(tmp_path):
    score = module_scorer(Budget(samples(tmp_path / "e.npz")), INPUTS, ["y"])
    turned = torch.nn.Linear(3, 3, bias=False)
    torch.nn.init.constant_(turned.weight, 0)
    with torch.no_grad():
        turned.weight[0] = 1.0  # says 0 to everything
    assert score(torch.nn.Identity()) == 1.0
    assert score(turned) == 0.5


def test_labels_of_the_wrong_length(tmp_path):
    with pytest.raises(UsageError, match="3 labels for 4 samples"):
        module_scorer(Budget(samples(tmp_path / "e.npz", labels=np.array([0, 1, 2]))), INPUTS, ["y"])


def test_an_error_has_a_budget_in_percent(tmp_path):
    data = samples(tmp_path / "e.npz", labels=np.eye(3, dtype=np.float32)[[0, 1, 2, 1]])
    score = module_scorer(Budget(data, metric="mse"), INPUTS, ["y"])
    assert score(torch.nn.Identity()) == pytest.approx(-1 / 6)
    assert (score.budget.points, score.budget.relative) == (None, 5.0)
    with pytest.raises(UsageError, match="counts points"):
        module_scorer(Budget(data, 1.0, metric="mse"), INPUTS, ["y"])
