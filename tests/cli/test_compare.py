"""`edgepack compare` on this machine: the documented keys, the gates' exit code and files, and what is refused at once."""

import xml.etree.ElementTree as ET

import pytest


@pytest.fixture
def bundle(edgepack, model):
    done = edgepack(
        "build", model, "--target", "linux-x86-64", "--recipe", "fp32", "--output", "a.edgepack", "--no-check"
    )
    assert done.status == 0, done.err
    return "a.edgepack"


def test_comparison_of_a_bundle_with_itself(edgepack, bundle, place):
    quick = ("--device", "local", "--threads", "1", "--rounds", "6", "--seconds", "0.3", "--json")
    files = ("--junit", "gates.xml", "--markdown", "gates.md")
    done = edgepack("compare", bundle, bundle, *quick, "--gate", "size:0%,slower:10000%", *files)
    assert done.status == 0, done.err
    found = done.json
    assert found["verdict"] in {"faster", "slower", "same", "inconclusive"}
    assert 0 < found["ratio"]["low"] <= found["ratio"]["estimate"] <= found["ratio"]["high"]
    assert (found["rounds"], found["unit"], found["exact"]) == (6, "ms", False)
    assert found["a"]["bundle"] == found["b"]["bundle"]
    assert found["a"]["parity"]["verdict"] == "pass"
    (pairing,) = found["pairings"]
    assert all(len(quad["a_ns"]) == len(quad["b_ns"]) == 2 for one in pairing["rounds"] for quad in one["quads"])
    assert [gate["outcome"] for gate in found["gates"]] == ["passed", "passed"]
    suite = ET.parse(place / "gates.xml").getroot()  # noqa: S314 - written by us, just now
    assert (suite.get("tests"), suite.get("failures")) == ("2", "0")
    assert "| size:0% | passed |" in (place / "gates.md").read_text()


@pytest.mark.parametrize(("gate", "said"), [("slow:5%", "did you mean 'slower'"), ("size:1", "wrong unit")])
def test_bad_gates_are_refused_before_anything_is_measured(edgepack, place, gate, said):
    done = edgepack("compare", "none.edgepack", "none.edgepack", "--device", "local", "--gate", gate)
    assert done.status == 2
    assert said in done.err


def test_comparison_is_stored_shown_again_and_fetched_where_the_database_failed(edgepack, bundle, place, monkeypatch):
    quick = ("--device", "local", "--threads", "1", "--rounds", "6", "--seconds", "0.2", "--json")
    (place / "shut").mkdir()
    monkeypatch.setenv("EDGEPACK_RESULTS", str(place / "shut"))  # a folder is no database
    done = edgepack("compare", bundle, bundle, *quick)
    assert done.status == 0, done.err
    assert done.json["comparison"] is None
    assert "the device keeps the comparison: edgepack results collect local" in done.err
    monkeypatch.setenv("EDGEPACK_RESULTS", str(place / "good.sqlite"))
    fetched = edgepack("results", "collect", "local", "--json").json
    assert fetched == {"runs": [], "comparisons": [1]}
    assert edgepack("results", "collect", "local", "--json").json == {"runs": [], "comparisons": []}
    again = edgepack("results", "comparisons", "1", "--json").json
    assert {key: again[key] for key in ("verdict", "ratio", "rounds", "a", "b")} == {
        key: done.json[key] for key in ("verdict", "ratio", "rounds", "a", "b")
    }
    assert again["pairings"] == done.json["pairings"]
    assert "comparison 1: " in edgepack("results", "comparisons", "1").out
    assert "fp32" in edgepack("results", "comparisons").out
    assert edgepack("results", "comparisons", "9").status == 2
