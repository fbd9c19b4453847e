"""The demo: a trained classifier, packed in float and in INT8 for this machine, pushed to it, measured side by side."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agent.contract import codec, statistics
from agent.contract.report import Report
from packager import demo_data
from packager.accuracy.evaluate import evaluate
from packager.device.device import Device
from packager.pipeline import Built, build
from packager.results.document import samples_ns

RECIPES = ("fp32", "int8")


@dataclasses.dataclass(frozen=True)
class DemoRow:
    """One recipe: its bundle, the reports of its turns, its accuracy on `n` test images (0..1)."""

    recipe: str
    built: Built
    reports: Sequence[Report]
    accuracy: float
    n: int

    @property
    def p50_ms(self) -> float:
        """The median over all turns, in milliseconds."""
        samples = [sample for report in self.reports for sample in samples_ns(report)]
        return float(statistics.summary(samples)["p50"]) / 1e6

    def document(self) -> dict[str, Any]:
        """For --json."""
        return {
            "recipe": self.recipe,
            "bundle": self.built.digest,
            "model_bytes": self.built.manifest.files[self.built.manifest.model].size,
            "p50_ms": self.p50_ms,
            "accuracy": self.accuracy,
            "n": self.n,
            "parity": codec.encode(self.reports[0].parity),
            "findings": codec.encode(findings(self)),
        }


def findings(row: DemoRow) -> list[Any]:
    """Every finding of every turn, once."""
    found: dict[str, Any] = {}
    for report in row.reports:
        found |= {finding.code: finding for finding in report.findings if finding.code not in found}
    return list(found.values())


def host_profile() -> str:
    """The generic profile of this machine."""
    import platform

    if platform.machine() in ("aarch64", "arm64"):
        return "linux-arm64"
    # The words of the kernel (arch/x86 cpufeatures): with either, signed INT8 weights are safe.
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    vnni = any(word in flags.split() for word in ("avx512_vnni", "avx_vnni"))
    return "linux-x86-64-vnni" if vnni else "linux-x86-64"


def run_demo(
    device: str = "local",
    *,
    target: str | None = None,
    seconds: float = 2.0,
    progress: Callable[[str], None] = lambda _: None,
) -> list[DemoRow]:
    """Builds both bundles, measures them in turn (A B B A) and scores them on the test images.

    The accuracy is computed on this machine's kernels, which are the device's own when the device is `local`.
    """
    profile = target or host_profile()
    with (
        tempfile.TemporaryDirectory(prefix="edgepack-demo-") as folder,
        Device(device, progress=progress) as target_device,
    ):
        built = {}
        for recipe in RECIPES:
            progress(f"building {recipe} for {profile}")
            built[recipe] = build(
                str(demo_data.model_path()),
                profile,
                recipe=recipe,
                calibration=str(demo_data.calibration_path()),
                output=Path(folder) / f"fashion-cnn-{recipe}.edgepack",
            )
        reports: dict[str, list[Report]] = {recipe: [] for recipe in RECIPES}
        for recipe in (*RECIPES, *reversed(RECIPES)):
            progress(f"measuring {recipe}")
            reports[recipe].append(target_device.bench(built[recipe].bundle, seconds=seconds / 2, rounds=2, threads=1))
        rows = []
        for recipe in RECIPES:
            progress(f"scoring {recipe} on the test images")
            score, _ = evaluate(built[recipe].bundle, demo_data.eval_path(), "top1")
            rows.append(DemoRow(recipe, built[recipe], tuple(reports[recipe]), score.score, score.n))
    return rows
