"""Stored reports to one page: what it shows is prepared here, how it looks stands in the template."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.contract import statistics
from agent.contract.errors import UsageError
from agent.contract.protocol import Layer
from agent.contract.report import Accuracy, ProbeReading, Report, Scored
from packager import page_frame
from packager.results import energy
from packager.results.details import fewer, overhead_share, points, shares, throughput
from packager.results.document import (
    counts_instructions,
    duration,
    memory_above_interpreter,
    peak_memory,
    unit_text,
)
from packager.results.interval import median_interval, values
from packager.results.page import charts, time_charts
from packager.results.page.repeat import repeat
from packager.results.store import Stored
from packager.version import __version__

_HERE = Path(__file__).parent
_SHARES = (5, 25, 50, 75, 95)
_ROWS, _LEAST_ROWS, _MOST_ROWS = 1500, 12, 240  # of all runs together, of each: the page stays below 2 MB
_WINDOWS = 60  # rows of a table that somebody reads
_FEW = 2  # a single point is no trade-off
_LEVELS = {"error": 0, "warning": 1, "info": 2}


def write_page(runs: Sequence[Stored], out: Path, *, notes: Sequence[str] = ()) -> int:
    """Writes the page and returns its size in bytes. `notes` stand at its top. Raises UsageError when it cannot be written."""
    text = page(runs, notes=notes).encode()
    part = out.with_name(f".{out.name}.part")
    try:
        part.write_bytes(text)
        part.replace(out)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UsageError(
            f"the page cannot be written: {error.strerror or error}", where=str(out), code="no-folder"
        ) from error
    return len(text)


def page(runs: Sequence[Stored], *, notes: Sequence[str] = ()) -> str:
    """The page's HTML. Everything that reports say is escaped: a device may be in other hands."""
    import jinja2

    if not runs:
        raise UsageError("there are no runs to show", fix="edgepack bench BUNDLE DEVICE", code="no-run")
    loader = jinja2.FileSystemLoader(_HERE)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True,
                                     undefined=jinja2.StrictUndefined)  # fmt: skip
    rows = max(_LEAST_ROWS, min(_MOST_ROWS, _ROWS // len(runs)))
    shown = [_run(one, rows) for one in runs]
    return environment.get_template("page.html.jinja").render(
        runs=shown,
        groups=_groups(shown),
        notes=notes,
        version=__version__,
        made=_when(dt.datetime.now(dt.UTC).timestamp()),
        style=page_frame.style(),
        script=(_HERE / "page.js").read_text(encoding="utf-8"),
        number=charts.number,
    )


def _when(unix: float) -> str:
    return dt.datetime.fromtimestamp(unix, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _run(one: Stored, rows: int) -> dict[str, Any]:
    report = one.report
    rounds = [part for part in values(report) if part]
    flat = sorted(value for part in rounds for value in part)
    numbers = {name: _stat(flat, name) for name in statistics.summary([])} if flat else {"n": 0}
    interval = median_interval(rounds)
    unit = "instructions" if counts_instructions(report) else "ms"
    load_unit, load = next(iter(duration(report, [part.load_ns for part in report.rounds]).items()))
    label = f"{report.name} {report.recipe}"
    return {
        "run": one.run,
        "label": label,
        "name": report.name,
        "recipe": report.recipe,
        "target": report.target,
        "device": one.device,
        "board": f"emulated {report.emulation.cpu}" if report.emulation else report.facts.model,
        "runtime": f"{report.runtime.name} {report.runtime.version}",
        "when": _when(one.stored_unix),
        "unit": unit,
        "unit_text": unit_text(report),
        "numbers": numbers,
        "interval": interval,
        "shares": [statistics.percentile(flat, share) for share in _SHARES] if flat else None,
        "rate": _rate(report),
        "load": f"{charts.number(load)} {load_unit}",
        "model_bytes": report.model_bytes,
        "sizes": [("model", report.model_bytes), ("bundle", report.bundle_bytes), ("original", report.source_bytes)],
        "memory": peak_memory(report),
        "memory_above": memory_above_interpreter(report),
        "parity": report.parity,
        "accuracy": report.accuracy,
        "accuracy_rows": _accuracy_rows(report.accuracy),
        "findings": sorted(report.findings, key=lambda finding: _LEVELS.get(finding.level, 3)),
        "histogram": _histogram(flat, numbers, unit_text(report), label) if flat else "",
        "course": charts.course(rounds, _readings(report), unit_text(report), f"Course of run {one.run}")
        if flat
        else "",
        "rounds": _rounds(report, rounds),
        "bars": _bars(report),
        **_time(report, one.run, rows),
        "facts": _facts(one),
        "placement": report.runtime.placement,
        "command": repeat(one),
    }


def _stat(flat: list[float], name: str) -> float | None:
    """As `statistics.summary`, of floats that are sorted already."""
    import numpy as np

    n = len(flat)
    if name.startswith("p"):
        share = int(name[1:])
        return statistics.percentile(flat, share) if statistics.supported(n, share) else None
    if name == "std":
        return float(np.std(flat, ddof=1)) if n > 1 else None
    found: dict[str, float] = {"n": n, "min": flat[0], "max": flat[-1], "mean": float(np.mean(flat))}
    return found[name]


def _rate(report: Report) -> float | None:
    return None if counts_instructions(report) else throughput(report)


def _histogram(flat: list[float], numbers: dict[str, Any], unit: str, label: str) -> str:
    marks = [(name, numbers[name]) for name in ("p50", "p95", "p99")]
    return charts.histogram(flat, marks, unit, f"Latency distribution of {label}")


def _accuracy_rows(accuracy: Accuracy | None) -> list[tuple[str, str]]:
    if accuracy is None:
        return []

    def text(scored: Scored | None) -> str:
        if scored is None:
            return "not scored"
        if scored.low is None or scored.high is None:
            return f"{scored.score:.4f}"
        return f"{scored.score:.4f} [{scored.low:.4f} to {scored.high:.4f}]"

    return [("on the device's kernels", text(accuracy.device)), ("on the host's kernels", text(accuracy.host))]


def _rounds(report: Report, rounds: list[list[float]]) -> list[dict[str, Any]]:
    found = []
    for one, part in zip([one for one in report.rounds if one.samples_ns], rounds, strict=True):
        ordered = sorted(part)
        row = {"n": len(part), "median": statistics.percentile(ordered, 50), "low": ordered[0], "high": ordered[-1]}
        found.append({**row, "before": _reading(one.before), "after": _reading(one.after)})
    return found


def _reading(reading: ProbeReading) -> str:
    clock = f"{max(reading.frequency_mhz):.0f} MHz" if reading.frequency_mhz else ""
    heat = f"{reading.temperature_c:.1f} °C" if reading.temperature_c is not None else ""
    throttled = "throttled" if reading.throttled else ""
    return ", ".join(part for part in (clock, heat, throttled, reading.governor or "") if part) or "not readable"


def _readings(report: Report) -> list[tuple[float, float, str]]:
    """The clock beside the samples, as points: its share of the highest seen."""
    taken, done = [], 0
    for one in report.rounds:
        taken.append((done, one.before))
        done += len(one.samples_ns)
        taken.append((done, one.after))
    clocks = [(at, max(reading.frequency_mhz), reading) for at, reading in taken if reading.frequency_mhz]
    top = max((clock for _, clock, _ in clocks), default=0.0)
    return [(at / max(1, done), 0.95 * clock / top, _reading(reading)) for at, clock, reading in clocks] if top else []


def _parts(report: Report) -> list[tuple[str, float]]:
    """The runtime's own division of an inference, medians in milliseconds; only some runtimes have it."""
    names = dict.fromkeys(name for one in report.rounds for name in one.parts_ns)
    found = []
    for name in names:
        median = statistics.summary([part for one in report.rounds for part in one.parts_ns.get(name, [])])["p50"]
        if median is not None:
            found.append((name, median / 1e6))
    return found


def _bars(report: Report) -> list[tuple[str, str, list[tuple[str, float]], str]]:
    """Bar plots of where the time goes: title, drawing, rows, unit."""
    rows = _parts(report)
    title = "Parts of an inference, by the runtime's own clock"
    return [(title, charts.bars(rows, "ms", title), rows, "ms")] if rows else []


def _time(report: Report, run: int, rows: int) -> dict[str, Any]:
    """The sustained course and the layers, each as a drawing and at most `rows` rows for its table; empty where they were not
    measured. Of more layers the slowest stand there, and the rest in one row.
    """
    course, profile = fewer(points(report), rows), report.profile
    found = profile.layers if profile else []
    parts = shares(found)
    overhead = overhead_share(found)
    return {
        "sustained": time_charts.sustained(course, f"Sustained course of run {run}") if course else "",
        "windows": fewer(course, min(rows, _WINDOWS)),
        "window_count": len(points(report)),
        "layers_plot": time_charts.layers(found, parts, f"Time of each layer, run {run}", rows) if found else "",
        "layers": _slowest(list(zip(found, parts, strict=True)), rows),
        "layers_note": (f"; {overhead:.1%} is conversion" if overhead is not None else "")
        + (f"; middle half of {profile.runs} profiled inferences" if profile and found else ""),
        "no_layers": profile.unread if profile else "",
        "energy": energy.told(report),
    }


def _slowest(layers: list[tuple[Layer, float]], rows: int) -> list[tuple[Layer, float]]:
    if len(layers) <= rows:
        return layers
    ranked = sorted(layers, key=lambda one: -one[1])
    rest = ranked[rows - 1 :]
    time = sum(layer.time_ns for layer, _ in rest)
    named = Layer(f"{len(rest)} quicker layers", "", "", time, overhead=False)
    return [*ranked[: rows - 1], (named, sum(share for _, share in rest))]


def _facts(one: Stored) -> list[tuple[str, str]]:
    report, facts, used = one.report, one.report.facts, one.report.runtime
    options = ", ".join(f"{key}={value}" for key, value in used.session_options.items())
    rows = [
        ("bundle", report.bundle),
        ("made for", f"{report.target}, recipe {report.recipe}"),
        ("runtime", f"{used.name} {used.version}, {used.provider or 'its default provider'}"),
        ("threads", str(used.threads) if used.threads else "the runtime's default"),
        ("session options", options or "none"),
        ("protocol", _protocol(report)),
        ("device", f"{one.device} ({facts.hostname}), {facts.model}"),
        (
            "processor",
            f"{facts.cpu_model}, {facts.cpu_cores} cores: {', '.join(facts.cpu_features) or 'no features known'}",
        ),
        (
            "system",
            f"{facts.os}, kernel {facts.kernel}, {facts.libc}, Python {facts.python}, numpy {facts.numpy or 'none'}",
        ),
        ("measured", f"{_when(report.started_unix)} by the device's clock; stored {_when(one.stored_unix)}"),
        ("job", report.job),
        ("schema", report.schema),
    ]
    return rows + [(f"not read: {what}", why) for what, why in sorted(facts.unread.items())]


def _protocol(report: Report) -> str:
    asked = report.protocol
    if asked is None:
        return "not told by this version's report"
    if asked.sustained_minutes:
        said = f"sustained for {asked.sustained_minutes:g} min in one process, from the first inference on"
    else:
        much = f"{asked.runs} inferences" if asked.runs is not None else f"{asked.seconds:g} s"
        said = f"{much} over {asked.rounds} fresh processes, warmed up for {asked.warmup_seconds:g} s and until settled"
    more = [f"batch {asked.batch}"] * bool(asked.batch) + [f"{asked.streams} streams at once"] * (asked.streams > 1)
    tried = ", ".join(f"{count}: {median / 1e6:.3f} ms" for count, median in asked.threads_tried.items())
    return ", ".join([said, *more, *([f"threads tried: {tried}"] if tried else [])])


def _groups(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The plots over several runs; one group for each unit, since instructions and milliseconds share no axis."""
    units = dict.fromkeys(run["unit_text"] for run in runs)
    return [_group(unit, [run for run in runs if run["unit_text"] == unit]) for unit in units]


def _group(unit: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    measured = [run for run in runs if run["shares"]]
    strips = [(f"{run['run']} {run['label']}", run["shares"]) for run in measured]
    scored: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in measured:
        if run["accuracy"] is not None:
            scored.setdefault((run["accuracy"].metric, run["accuracy"].data), []).append(run)
    fronts = []
    for (metric, _), some in scored.items():
        if len(some) < _FEW:
            continue
        points = [_point(run, run["accuracy"].device.score) for run in some]
        fronts.append(
            (
                f"{metric} against latency",
                charts.pareto(points, (f"p50, {unit}", metric), f"{metric} against latency"),
                some,
            )
        )
    sizes = [_point(run, run["model_bytes"] / 1e6) for run in measured]
    title = "Size against latency"
    size_plot = charts.pareto(sizes, (f"p50, {unit}", "model, MB"), title, low_is_better=True) if len(sizes) > 1 else ""
    return {
        "unit": unit,
        "runs": runs,
        "strips": charts.strips(strips, unit, f"Latency of {len(strips)} runs") if strips else "",
        "fronts": fronts,
        "size_plot": size_plot,
    }


def _point(run: dict[str, Any], score: float) -> tuple[str, float, float, float]:
    return (f"{run['run']} {run['label']}", run["numbers"]["p50"], score, run["model_bytes"])
