"""Exports hold what the reports hold."""

import csv
import json

import pytest

from agent.contract.errors import UsageError
from packager.results.export import export, row
from packager.results.store import Stored
from tests.packager.results.reports import EMULATED, report, scored

RUNS = [
    Stored(1, 1.7e9, "pi@kitchen", report("a", accuracy=scored())),
    Stored(2, 1.8e9, "=cmd()", report("b", emulation=EMULATED)),
]


def test_csv(tmp_path):
    export(RUNS, "csv", str(tmp_path / "r.csv"))
    with (tmp_path / "r.csv").open(newline="") as file:
        one, two = csv.DictReader(file)
    assert float(one["p50_ms"]) == row(RUNS[0])["p50_ms"]
    assert (one["p50_instructions"], one["device_score"], one["findings"]) == ("", "0.9", "warning:busy")
    assert (two["p50_ms"], two["load_ms"], two["unit"]) == ("", "", "instructions"), "instructions are no milliseconds"
    assert two["device"] == "'=cmd()", "a spreadsheet must not run it"


def test_json(tmp_path):
    export(RUNS, "json", str(tmp_path / "r.json"))
    one, two = json.loads((tmp_path / "r.json").read_text())
    assert one["latency"]["samples_ns"] == [value for part in RUNS[0].report.rounds for value in part.samples_ns]
    assert two["emulation"]["cpu"] == "cortex-a76"


def test_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    export(RUNS, "parquet", str(tmp_path / "r.parquet"))
    one, _ = parquet.read_table(tmp_path / "r.parquet").to_pylist()
    assert one["samples_ns"] == [value for part in RUNS[0].report.rounds for value in part.samples_ns]
    assert one["p50_ms"] == row(RUNS[0])["p50_ms"]


def test_mlflow(tmp_path):
    tracking = pytest.importorskip("mlflow.tracking")
    uri = f"sqlite:///{tmp_path / 'm.db'}"
    assert "2 runs written" in export(RUNS, "mlflow", uri)
    assert "0 runs written" in export(RUNS, "mlflow", uri), "a run is exported once"
    client = tracking.MlflowClient(uri)
    place = client.get_experiment_by_name("edgepack").experiment_id
    found = {one.data.tags["edgepack.job"]: one.data for one in client.search_runs([place])}
    assert found["a"].metrics["p50_ms"] == row(RUNS[0])["p50_ms"]
    assert found["a"].params["runtime"] == "onnxruntime"


def test_a_missing_extra_is_named(monkeypatch):
    import sys

    for name, kind, extra in (("mlflow", "mlflow", "mlflow"), ("pyarrow", "parquet", "export")):
        for loaded in [name, *(one for one in sys.modules if one.startswith(f"{name}."))]:
            monkeypatch.setitem(sys.modules, loaded, None)
        with pytest.raises(UsageError, match=f"extra `{extra}`"):
            export(RUNS, kind, "x")
