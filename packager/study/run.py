"""A study: every candidate built, scored on this machine and measured on the device, in turns; failures stay as rows."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.errors import DeviceError, EdgepackError
from packager import pipeline
from packager.accuracy.paired import Budget
from packager.profile import load_profile
from packager.shapes import parse_shapes
from packager.study.plan import Candidate, plan
from packager.study.row import Compared, Latency, Row, advice, compare, recommended, to_measure
from packager.study.score import Samples, accuracy, load_samples

if TYPE_CHECKING:
    from agent.contract.report import Report
    from packager.device.device import Device

_ROUNDS = 3
_TURNS = 2


@dataclasses.dataclass(frozen=True)
class StudyOptions:
    """What is asked. `seconds` is the time measured for each row; `train` is training data for the pruning rows."""

    model: str
    target: str
    calibration: str
    eval: str
    device: str | None = None
    metric: str | None = None
    train: str | None = None
    epochs: int = 1
    sparsity: float = 0.5
    max_drop: float | None = None  # points
    max_drop_relative: float | None = None  # percent of the original's score
    seconds: float = 2.0
    threads: int = 0
    shapes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Study:
    """The whole table. The first row is the original."""

    options: StudyOptions
    name: str
    metric: str
    n: int
    rows: list[Compared]
    machine: str
    budget: Budget = dataclasses.field(default_factory=Budget)

    @property
    def best(self) -> Compared | None:
        """The row to take; None when the original is best."""
        return recommended(self.rows)

    @property
    def advice(self) -> str:
        """What to do, in words."""
        return advice(self.rows)

    def document(self) -> dict[str, Any]:
        """What `edgepack study --json` prints."""
        best = self.best
        return {
            "model": self.options.model,
            "target": self.options.target,
            "device": self.options.device,
            "machine": self.machine,
            "metric": self.metric,
            "n": self.n,
            "max_drop": self.budget.points,
            "max_drop_relative": self.budget.relative,
            "rows": [one.document() for one in self.rows],
            "recommended": best.row.label if best is not None else None,
            "to_measure": to_measure(self.rows),
        }


def run_study(options: StudyOptions, progress: Callable[[str], None] = lambda _: None) -> Study:
    """Tries everything. Raises UsageError for a bad request, and what stops the original itself; other failures are rows."""
    profile = load_profile(options.target)
    source = pipeline.find_source(options.model)
    progress("reading the model")
    artifact = source.open(options.model, {"shapes": parse_shapes(options.shapes), "output_names": ()})
    samples = load_samples(options.eval, options.metric, artifact, options.max_drop, options.max_drop_relative)
    with tempfile.TemporaryDirectory(prefix="edgepack-study-") as name:
        folder = Path(name)
        candidates = plan(
            profile,
            folder,
            train=options.train,
            epochs=options.epochs,
            sparsity=options.sparsity,
            trainable=artifact.format == "torch",
        )
        rows, bundles = [], []
        for index, candidate in enumerate(candidates):
            row, bundle = _build(candidate, options, samples, folder / str(index), progress)
            rows.append(row)
            bundles.append(bundle)
        machine = ""
        if options.device is not None:
            rows, machine = _measure(rows, bundles, options, progress)
    where = "this device" if options.device else "the device"
    compared = [compare(row, rows[0], samples.budget, where) for row in rows]
    name, metric = pipeline.model_name(options.model), samples.metric.name
    return Study(options, name, metric, len(samples), compared, machine, samples.budget)


def _build(
    candidate: Candidate,
    options: StudyOptions,
    samples: Samples,
    folder: Path,
    progress: Callable[[str], None],
) -> tuple[Row, Path | None]:
    """The row without its latency, and the bundle. The original's own failure is raised, others are kept."""
    folder.mkdir()
    progress(f"building {candidate.label}")
    row = Row(candidate.label, candidate.runtime, Path(candidate.recipe).stem, note=candidate.note)
    try:
        built = pipeline.build(
            options.model,
            options.target,
            runtime=candidate.runtime,
            recipe=candidate.recipe,
            calibration=options.calibration,
            shapes=options.shapes,
            output=folder / "study.edgepack",
            progress=lambda text: progress(f"{candidate.label}: {text}"),
        )
        scored, unscored = None, ""
        try:
            scored = accuracy(samples, built.bundle, folder / "open")
        except EdgepackError as error:
            unscored = f"not scored on this machine: {error.what}"
    except EdgepackError as error:
        if folder.name == "0":
            raise
        return dataclasses.replace(row, error=error.what), None
    doubts = [one for one in built.manifest.findings if one.code == "host-parity"]
    note = "; ".join(one for one in (candidate.note, unscored) if one)
    return dataclasses.replace(
        row,
        model_bytes=built.manifest.files[built.manifest.model].size,
        bundle_bytes=built.size_bytes,
        accuracy=scored,
        parity="fail (on the host)" if doubts else "pass (on the host)",
        note=note,
        findings=tuple(built.manifest.findings),
        unmeasured="give --device",
    ), built.bundle


def _measure(
    rows: Sequence[Row], bundles: Sequence[Path | None], options: StudyOptions, progress: Callable[[str], None]
) -> tuple[list[Row], str]:
    """Every bundle in two turns, there and back, so that a device that warms up is unfair to none."""
    from packager.device.device import Device

    reports: dict[int, list[Report]] = {}
    failed: dict[int, str] = {}
    order = [index for index, bundle in enumerate(bundles) if bundle is not None]
    with Device(options.device or "local", progress=progress) as device:
        for turn in range(_TURNS):
            for index in order if turn % 2 == 0 else reversed(order):
                if index in failed:
                    continue
                progress(f"measuring {rows[index].label}, turn {turn + 1} of {_TURNS}")
                try:
                    reports.setdefault(index, []).append(_bench(device, bundles[index], options))
                except DeviceError as error:
                    if index == 0:
                        raise
                    failed[index] = error.what
    machine = next((one.facts.model for group in reports.values() for one in group), "")
    return [_measured(row, reports.get(index, []), failed.get(index, "")) for index, row in enumerate(rows)], machine


def _bench(device: Device, bundle: Path | None, options: StudyOptions) -> Report:
    assert bundle is not None  # noqa: S101 - for the type checker: only built rows are measured
    return device.bench(bundle, seconds=options.seconds / _TURNS, rounds=_ROUNDS, threads=options.threads)


def _measured(row: Row, reports: Sequence[Report], failed: str) -> Row:
    from agent.contract.statistics import summary
    from packager.results.document import counts_instructions, instructions

    if failed or not reports:
        return dataclasses.replace(row, unmeasured=failed or row.unmeasured)
    counted = counts_instructions(reports[0])
    groups = [
        instructions(report, one.samples_ns) if counted else one.samples_ns
        for report in reports
        for one in report.rounds
    ]
    scale = 1.0 if counted else 1e6
    medians = [float(summary(group)["p50"]) / scale for group in groups if group]
    every = [sample for group in groups for sample in group]
    latency = Latency(
        "instructions" if counted else "ms",
        float(summary(every)["p50"]) / scale,
        min(medians),
        max(medians),
        len(every),
    )
    parity = next((one.parity.verdict for one in reports if one.parity is not None), row.parity)
    seen = {one.code: one for report in reports for one in report.findings}
    known = {one.code for one in row.findings}
    extra = tuple(one for code, one in seen.items() if code not in known)
    return dataclasses.replace(row, latency=latency, parity=parity, unmeasured="", findings=(*row.findings, *extra))
