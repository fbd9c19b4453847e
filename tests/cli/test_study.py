"""study from its command line: every row, a verdict each, one page."""

from importlib.resources import files

import pytest

from tests.packager import models
from tests.packager.accuracy import nets

STUDY = ("study", "net.onnx", "-t", "linux-x86-64.toml", "-c", "cal.npz", "--eval", "eval.npz")


@pytest.fixture
def small(place):
    nets.sets(place, models.classifier(place / "net.onnx", width=16), samples=60)
    # One runtime only: those that need torch take seconds to start, and are studied in the same way.
    text = files("profiles").joinpath("linux-x86-64.toml").read_text(encoding="utf-8")
    (place / "linux-x86-64.toml").write_text(text[: text.index("[runtimes.tflite]")], encoding="utf-8")
    return place


def test_every_technique_has_a_row_and_a_verdict(edgepack, small):
    done = edgepack(*STUDY, "--json", "-o", "page.html")
    assert done.status == 0, done.err
    rows = {row["label"]: row for row in done.json["rows"]}
    assert list(rows)[:4] == ["ONNX Runtime float", "FP16", "INT8 dynamic", "INT8"]
    assert (done.json["metric"], done.json["n"]) == ("top1", 60)
    assert all(row["verdict"] for row in rows.values())
    assert rows["INT8"]["model_bytes"] < rows["ONNX Runtime float"]["model_bytes"]
    assert "one shot, no fine-tuning" in rows["50% of weights pruned"]["note"]
    # An ONNX file has no channels to remove: a failure stays in the table.
    failed = rows["50% of channels pruned"]
    assert "nn.Module" in failed["error"]
    assert "failed" in failed["verdict"]
    page = (small / "page.html").read_text()
    assert all(name in page for name in rows)


@pytest.mark.device
def test_study_measured_on_this_machine_gives_intervals(edgepack, small):
    done = edgepack(*STUDY, "--device", "local", "--seconds", "0.2", "--json")
    assert done.status == 0, done.err
    row = next(row for row in done.json["rows"] if row["label"] == "INT8")
    assert row["latency"]["low"] <= row["latency"]["p50"] <= row["latency"]["high"]
    assert row["parity"] == "pass"


def test_study_without_a_model(edgepack, small):
    done = edgepack("study", "none.onnx", *STUDY[2:])
    assert done.status == 2
    assert "there is no such model" in done.err
