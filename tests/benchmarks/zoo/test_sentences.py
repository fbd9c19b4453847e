"""Retrieval."""

import itertools

import numpy as np
import pytest

from benchmarks.zoo import sentences


def test_a_pair_does_not_say_its_noun(wordnet):
    # "ice cube" is two words.
    assert {noun for noun, _ in sentences.pairs(wordnet, seed=0)} == {"entity", "mirror", "glass"}
    assert sentences.pairs(wordnet, seed=0) == sentences.pairs(wordnet, seed=0)


def retrieval(tmp_path, scored, candidates):
    """The metric beside a bank of two kinds of candidates, and the bank."""
    bank = np.random.default_rng(0).normal(size=(2 * candidates, 8)).astype(np.float32)
    bank /= np.linalg.norm(bank, axis=1, keepdims=True)
    np.save(tmp_path / "bank.npy", bank)
    return scored(sentences.RETRIEVAL.format(candidates=candidates)), bank


def test_retrieval_scores_every_sample_on_its_own_among_its_kind(tmp_path, scored):
    metric, bank = retrieval(tmp_path, scored, 20)
    labels = np.arange(40)
    assert metric.measure({"output": bank}, labels).score == 1.0
    noisy = bank + np.random.default_rng(1).normal(0, 0.5, bank.shape).astype(np.float32)
    found = metric.measure({"output": noisy}, labels)
    assert found.rows is not None
    for place, kind in itertools.product((3, 17), (0, 1)):
        sample = 20 * kind + place
        alike = bank[20 * kind : 20 * kind + 20] @ noisy[sample]
        rank = 1 + (alike > alike[place]).sum()
        assert found.rows[sample] == pytest.approx(1 / rank)


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_retrieval_finds_nothing_by_an_embedding_that_says_nothing(tmp_path, scored, value):
    metric, bank = retrieval(tmp_path, scored, 20)
    assert metric.measure({"output": np.full_like(bank, value)}, np.arange(40)).score == pytest.approx(1 / 20)
