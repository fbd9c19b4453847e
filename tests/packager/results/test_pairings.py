"""Comparisons are kept with all their samples, judged again as they were, and told of a newer form."""

import dataclasses
import sqlite3

import numpy as np
import pytest

from agent.contract.errors import ContractError, UsageError
from agent.contract.pairing import Pairing, PairOptions, PairSide
from agent.contract.report import RuntimeUsed
from packager.compare import verdict
from packager.compare.run import again
from packager.results.history import doomed_comparisons
from packager.results.pairings import PairingStore
from packager.results.store import ResultStore
from tests.packager.compare.test_ratio import measured
from tests.packager.results.reports import FACTS, report


def pairing(job, true=1.0, seed=1):
    used = RuntimeUsed("onnxruntime", "1.32.0", "CPUExecutionProvider", 1)
    sides = [PairSide("sha256:" + key * 64, "net", "t", "fp32", used, None, 1000) for key in "ab"]
    rounds = measured(np.random.default_rng(seed), true, rounds=6)
    return Pairing(job, *sides, PairOptions("a", "b"), rounds, FACTS, 1.7e9, 20.0, [])


@pytest.fixture
def store(tmp_path):
    return PairingStore(tmp_path / "results.sqlite")


def test_what_was_measured_comes_back_whole(store):
    kept = pairing("one", 1.3)
    assert store.add_pairings([kept], "pi@kitchen", 0.02) == [1]
    found = store.comparison(1)
    assert found.pairings == [kept]
    assert again(found.device, found.pairings, found.margin, found.looks).judgement == verdict.judge(kept.rounds, 0.02)


def test_a_comparison_until_decided_is_one_and_keeps_its_level(store):
    parts = [pairing("one", seed=1), pairing("two", seed=2)]
    assert store.add_pairings(parts, "pi", 0.02, looks=2) == [1, 2]
    store.add_pairings([pairing("three", seed=3)], "pi", 0.02)
    assert [(one.number, len(one.pairings)) for one in store.comparisons()] == [(1, 2), (3, 1)]
    one = store.comparison(1)
    judged = again(one.device, one.pairings, one.margin, one.looks).judgement
    assert judged.rounds == 12
    assert judged.level == pytest.approx(1 - 0.05 / 6)


def test_the_same_job_is_kept_once(store):
    assert store.add_pairings([pairing("one")], "pi", 0.02) == store.add_pairings([pairing("one")], "pi", 0.02) == [1]


def test_a_number_that_is_not_there(store):
    with pytest.raises(UsageError, match="no comparison 7"):
        store.comparison(7)


def test_comparison_of_a_newer_form(store):
    store.add_pairings([pairing("one")], "pi", 0.02)
    with sqlite3.connect(store.path) as connection:
        connection.execute("update pairings set document = replace(document, 'pairing/1', 'pairing/9')")
    with pytest.raises(ContractError, match="pairing/9"):
        store.comparison(1)


def test_reports_and_comparisons_share_the_database(store, tmp_path):
    assert ResultStore(tmp_path / "results.sqlite").add(report("job"), "pi") == 1
    assert store.add_pairings([dataclasses.replace(pairing("one"), job="other")], "pi", 0.02) == [1]
    assert ResultStore(tmp_path / "results.sqlite").get(1).report.job == "job"


def test_retention_keeps_the_newest_of_each_pair(store):
    store.add_pairings([pairing("one", seed=1), pairing("two", seed=2)], "pi", 0.02, looks=2)
    for job in ("three", "four"):
        store.add_pairings([pairing(job)], "pi", 0.02)
    store.add_pairings([pairing("five")], "other", 0.02)
    rows = store.comparison_rows()
    assert [one.number for one in rows] == [1, 3, 4, 5]
    assert doomed_comparisons(rows, keep=1, older_than=None, now=rows[-1].stored_unix) == [1, 3]
    assert doomed_comparisons(rows, keep=1, older_than=3600.0, now=rows[-1].stored_unix) == []
    store.delete_comparisons([1, 3])
    assert [one.number for one in store.comparisons()] == [4, 5]
