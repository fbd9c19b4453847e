"""Evaluation sets: what is refused, and how outputs are stacked."""

import numpy as np
import pytest

from agent.contract.errors import ConvertError, UsageError
from agent.contract.manifest import TensorSpec
from packager.accuracy.dataset import EvalSet, load_eval

IMAGE = (TensorSpec("image", "float32", [1, 3]),)


def save(folder, **arrays):
    np.savez(folder / "eval.npz", **arrays)
    return folder / "eval.npz"


def images(n=5):
    return np.arange(3 * n, dtype=np.float32).reshape(n, 3)


def test_labels_of_the_wrong_length(tmp_path):
    with pytest.raises(UsageError, match="4 labels for 5 samples"):
        load_eval(save(tmp_path, image=images(), labels=np.arange(4)), IMAGE)


def test_missing_input(tmp_path):
    with pytest.raises(UsageError, match="the evaluation set lacks the input 'image'"):
        load_eval(save(tmp_path, labels=np.arange(4)), IMAGE)


def test_unknown_key_names_the_nearest(tmp_path):
    with pytest.raises(UsageError, match="did you mean 'image'"):
        load_eval(save(tmp_path, imege=images(), labels=np.arange(5)), IMAGE)


def test_nan_in_a_sample(tmp_path):
    bad = images()
    bad[3, 1] = np.nan
    with pytest.raises(UsageError, match="first in sample 3"):
        load_eval(save(tmp_path, image=bad, labels=np.arange(5)), IMAGE)


def test_no_file(tmp_path):
    with pytest.raises(UsageError, match="no such evaluation set"):
        load_eval(tmp_path / "nothing.npz", IMAGE)


def test_a_batch_of_two_takes_five_samples():
    data = EvalSet({"image": images()}, None, (TensorSpec("image", "float32", [2, 3]),))
    feeds = list(data.feeds())
    assert [feed["image"].shape for feed in feeds] == [(2, 3)] * 3
    stacked = data.stack({"y": feed["image"] * 2} for feed in feeds)
    assert np.array_equal(stacked["y"], images() * 2)


def test_a_sample_that_is_a_whole_input():
    data = EvalSet({"image": images().reshape(5, 1, 3)}, None, IMAGE)
    assert [feed["image"].shape for feed in data.feeds()] == [(1, 3)] * 5
    assert data.stack({"y": feed["image"]} for feed in data.feeds())["y"].shape == (5, 3)


def test_an_output_whose_batch_is_the_second_axis_stays_whole():
    data = EvalSet({"image": images()}, None, IMAGE)
    assert data.stack({"y": np.zeros((20, 1, 7))} for _ in data.feeds())["y"].shape == (5, 20, 1, 7)


def test_a_batch_that_is_nowhere_in_the_output():
    data = EvalSet({"image": images()}, None, (TensorSpec("image", "float32", [2, 3]),))
    with pytest.raises(ConvertError, match=r"shape \[7\] for 2 samples"):
        data.stack({"y": np.zeros(7)} for _ in data.feeds())
