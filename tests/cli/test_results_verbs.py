"""edgepack results baseline, history, prune, export; edgepack report."""

import json

import pytest

from packager.results.store import ResultStore
from tests.packager.results.reports import report


@pytest.fixture
def stored(place):
    store = ResultStore()
    medians = [1_000_000 + 3_000 * (n % 3) for n in range(8)] + [1_300_000 + 3_000 * (n % 3) for n in range(8)]
    return [store.add(report(f"job-{n}", median), "pi") for n, median in enumerate(medians)]


def test_a_baseline_and_the_newest_beside_it(edgepack, stored):
    assert edgepack("results", "baseline", "set", 1, "--note", "release", "--json").json["replaced"] is None
    assert edgepack("results", "baseline", "set", 2, "--json").json["replaced"] == 1
    (shown,) = edgepack("results", "baseline", "show", "--json").json
    assert (shown["run"], shown["newest"], shown["changed"]) == (2, 16, [])
    assert 1.29 < shown["ratio"] < 1.31
    assert "newest: run 16" in edgepack("results", "baseline", "show", "tiny").out
    assert edgepack("results", "baseline", "remove", 2).status == 0
    done = edgepack("results", "baseline", "remove", 2)
    assert (done.status, "no baseline" in done.err) == (2, True)


def test_a_history_with_its_step(edgepack, stored):
    (series,) = edgepack("results", "history", "--json").json
    assert [one["run"] for one in series["runs"]] == stored
    (step,) = series["changes"]
    assert step["run"] == 9
    assert f"level x{step['ratio']:.3f}" in edgepack("results", "history", "tiny", "--device", "pi").out
    assert edgepack("results", "history", "--device", "orin", "--json").json == []


def test_pruning_keeps_baselines(edgepack, stored):
    edgepack("results", "baseline", "set", 3)
    assert edgepack("results", "prune").status == 2
    named = edgepack("results", "prune", "--keep", 2, "--dry-run", "--json").json
    assert named == {"runs": [run for run in stored[:-2] if run != 3], "comparisons": [], "deleted": False}
    assert edgepack("results", "prune", "--keep", 2).status == 0
    assert [one["run"] for one in edgepack("results", "list", "--json").json] == [16, 15, 3]


def test_exporting_some(edgepack, stored, place):
    assert edgepack("results", "export", "json", 2, 1, "-o", "r.json").status == 0
    assert [one["run"] for one in json.loads((place / "r.json").read_text())] == [2, 1]


def test_a_page_of_some_runs(edgepack, stored, place):
    told = edgepack("report", 1, 9, "-o", "page.html", "--json").json
    assert told == {"page": "page.html", "bytes": (place / "page.html").stat().st_size, "runs": [1, 9]}
    assert "Run 9: tiny int8" in (place / "page.html").read_text()
    assert edgepack("report", 77, "-o", "page.html").status == 2


def test_a_page_without_any_runs(edgepack, place):
    done = edgepack("report", "-o", "page.html")
    assert (done.status, "no runs to show" in done.err) == (2, True)


def test_another_database(edgepack, stored, place, monkeypatch):
    assert edgepack("results", "list", "--database", "other.sqlite", "--json").json == []
    monkeypatch.setenv("EDGEPACK_RESULTS", "sqlite:///other.sqlite")
    assert edgepack("results", "list", "--json").json == []
    assert edgepack("results", "list", "--database", "mysql://u:pw@h/d").status == 2
