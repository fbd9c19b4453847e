"""Stored reports for other tools: CSV, JSON, Parquet, an MLflow server."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.contract.errors import UsageError
from packager.results.document import report_document, samples_ns
from packager.results.store import Stored

FORMATS = ("csv", "json", "parquet", "mlflow")
_NUMBERS = ("mean", "std", "min", "max", "p50", "p90", "p95", "p99")


def row(one: Stored) -> dict[str, Any]:
    """A run as one flat row. Columns end in their unit; those of the unit that the run has not are empty."""
    report, document = one.report, report_document(one.report, one.device, one.run)
    latency, accuracy = document["latency"], report.accuracy
    found: dict[str, Any] = {
        "run": one.run,
        "stored_unix": one.stored_unix,
        "device": one.device,
        "hostname": report.facts.hostname,
        "board": report.facts.model,
        "emulated": report.emulation.cpu if report.emulation else "",
        **{word: document[word] for word in ("name", "target", "recipe", "bundle")},
        "runtime": report.runtime.name,
        "runtime_version": report.runtime.version,
        "provider": report.runtime.provider,
        "threads": report.runtime.threads,
        "n": latency["n"],
        "unit": latency["unit"],
    }
    for unit in ("ms", "instructions"):
        found |= {f"{name}_{unit}": latency.get(f"{name}_{unit}") for name in _NUMBERS}
        found |= {f"{name}_{unit}": document.get(f"{name}_{unit}") for name in ("load", "first_inference")}
    found |= {"throughput_per_s": latency.get("throughput_per_s"), **document["sizes"]}
    found |= {key: document[key] for key in ("peak_memory_bytes", "memory_above_interpreter_bytes")}
    cosines = [out.cosine for out in report.parity.outputs if out.cosine is not None] if report.parity else []
    return found | {
        "parity": report.parity.verdict if report.parity else "",
        "worst_cosine": min(cosines) if cosines else None,
        "metric": accuracy.metric if accuracy else "",
        "device_score": accuracy.device.score if accuracy else None,
        "host_score": accuracy.host.score if accuracy and accuracy.host else None,
        "findings": " ".join(f"{finding.level}:{finding.code}" for finding in report.findings),
    }


def export(runs: Sequence[Stored], kind: str, out: str, experiment: str = "edgepack") -> str:
    """Writes the runs; what was written where. `out` is a file, or for `mlflow` the server's tracking URI.

    `json` holds whole documents with raw samples, `parquet` the rows with a column `samples_ns`, `csv` the rows alone.
    Raises UsageError, also where an extra is missing.
    """
    if kind == "mlflow":
        return _mlflow(runs, out, experiment)
    if kind == "parquet":
        data = _parquet(runs)
    elif kind == "csv":
        data = _csv(runs).encode()
    else:
        documents = [
            {**report_document(one.report, one.device, one.run), "stored_unix": one.stored_unix} for one in runs
        ]
        data = (json.dumps(documents, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
    path = Path(out)
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UsageError(
            f"the file cannot be written: {error.strerror or error}", where=out, code="no-folder"
        ) from error
    return f"{out}: {len(runs)} runs, {len(data) / 1e3:.1f} kB"


def _csv(runs: Sequence[Stored]) -> str:
    rows = [row(one) for one in runs]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["run"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _plain(value) for key, value in one.items()} for one in rows)
    return text.getvalue()


def _plain(value: Any) -> Any:
    """A text that a spreadsheet would run as a formula gets an apostrophe: names come from devices."""
    return f"'{value}" if isinstance(value, str) and value[:1] in {"=", "+", "-", "@", "\t"} else value


def _parquet(runs: Sequence[Stored]) -> bytes:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise _no_extra("Parquet", "export", error) from error
    rows = [{**row(one), "samples_ns": samples_ns(one.report)} for one in runs]
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(rows), sink, compression="zstd")
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _mlflow(runs: Sequence[Stored], uri: str, experiment: str) -> str:
    """A run of MLflow's for each; one that is there already (by the tag `edgepack.job`) is left alone."""
    try:
        from mlflow.entities import Metric, Param, RunTag
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise _no_extra("MLflow", "mlflow", error) from error
    try:
        client = MlflowClient(tracking_uri=uri)
        found = client.get_experiment_by_name(experiment)
        place = found.experiment_id if found else client.create_experiment(experiment)
        made = 0
        for one in runs:
            job = "".join(char for char in one.report.job if char.isalnum() or char in "-_")
            if client.search_runs([place], filter_string=f"tags.`edgepack.job` = '{job}'", max_results=1):
                continue
            values, when = row(one), int(one.stored_unix * 1000)
            metrics = {
                key: value for key, value in values.items() if isinstance(value, float) or key.endswith("_bytes")
            }
            params = {
                key: str(value)[:500] for key, value in values.items() if key not in metrics and value not in ("", None)
            }
            name = f"{one.report.name} {one.report.recipe} on {one.device}"
            started = client.create_run(place, start_time=when, run_name=name).info.run_id
            client.log_batch(
                started,
                metrics=[Metric(key, float(value), when, 0) for key, value in metrics.items() if value is not None],
                params=[Param(key, value) for key, value in params.items()],
                tags=[RunTag("edgepack.job", job), RunTag("edgepack.schema", one.report.schema)],
            )
            client.set_terminated(started, end_time=when)
            made += 1
    except MlflowException as error:
        raise UsageError(f"MLflow refused: {error.message:.500}", where=uri, code="mlflow") from error
    return f"{uri}: {made} runs written to the experiment {experiment!r}, {len(runs) - made} were there"


def _no_extra(what: str, extra: str, error: ImportError) -> UsageError:
    return UsageError(
        f"{what} needs the extra `{extra}`: {error}", fix=f"pip install 'edgepack[{extra}]'", code="no-extra"
    )
