"""A change of level is found where it is, and nowhere else."""

import random

import pytest

from packager.results.history import by_series, changes, doomed, what_changed
from packager.results.store import Row
from packager.results.tables import series_of
from tests.packager.results.reports import report

SERIES = series_of(report("a"), "pi")


def rows(medians):
    return [Row(n + 1, float(n), SERIES, "1", "b", 100, value, value, 1) for n, value in enumerate(medians)]


def noisy(seed, count, level=1.0, spread=0.03):
    draw = random.Random(seed)  # noqa: S311 - noise, no secret
    return [level * draw.lognormvariate(0, spread) for _ in range(count)]


def test_a_step_is_found_where_it_is():
    (found,) = changes(rows(noisy(1, 20) + noisy(2, 15, 1.15)))
    assert (found.run, found.before) == (21, 20)
    assert 1.1 < found.ratio < 1.2
    assert found.p <= 0.01


def test_two_steps_are_two():
    found = changes(rows(noisy(3, 20) + noisy(4, 20, 1.3) + noisy(5, 20)))
    assert len(found) == 2
    assert all(abs(one.run - place) <= 1 for one, place in zip(found, (21, 41), strict=True))


def test_one_odd_run_is_no_step():
    medians = noisy(6, 30)
    medians[14] = 9.0
    assert changes(rows(medians)) == []


def test_noise_is_seldom_a_step():
    alarms = sum(bool(changes(rows(noisy(seed, 30)))) for seed in range(60))
    assert alarms <= 3, "one per cent each: more than 3 of 60 has a chance of 1 in 300"


def test_few_runs_show_no_step():
    assert changes(rows([1.0] * 4 + [2.0] * 5)) == []


def test_equal_medians_are_no_step():
    assert changes(rows([5.0] * 30)) == []


def test_a_series_is_one_device_and_one_runtime(tmp_path, monkeypatch):
    from packager.results.store import ResultStore

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    store = ResultStore(tmp_path / "r.sqlite")
    for number, device in enumerate(["pi", "pi", "orin"]):
        store.add(report(f"job-{number}"), device)
    store.add(report("job-9", recipe="fp32"), "pi")
    assert sorted(len(some) for some in by_series(store.rows()).values()) == [1, 1, 2]


def test_what_changed_names_the_suspects():
    import dataclasses

    before = report("a")
    used = dataclasses.replace(before.runtime, version="1.33.0")
    facts = dataclasses.replace(before.facts, kernel="6.12")
    assert what_changed(before, report("b", runtime=used, facts=facts)) == [
        "runtime: onnxruntime 1.32.0 -> onnxruntime 1.33.0",
        "kernel: 6.6 -> 6.12",
    ]


@pytest.mark.parametrize(
    ("keep", "older", "gone"),
    [(2, None, [2, 3]), (None, 5.5, [2, 3, 4]), (3, 5.5, [2]), (0, None, [2, 3, 4, 5]), (9, None, [])],
)
def test_retention_lets_go_what_it_says(keep, older, gone):
    some = rows([1.0] * 5)
    assert doomed(some, [1], keep=keep, older_than=older, now=9.0) == gone
