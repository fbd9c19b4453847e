"""Compare two bundles on a device: is B faster than A, slower, or the same?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from packager.cli import _complete
from packager.cli._show import json_option, mb, print_json, progress, show_findings, table


@click.command()
@click.argument("a")
@click.argument("b")
@click.option("--device", required=True, shell_complete=_complete.devices, help="Where both are measured.")
@click.option("--until-decided", is_flag=True, help="Measure on while the verdict is inconclusive.")
@click.option("--margin", type=click.FloatRange(0.1, 50), default=2.0, show_default=True, help="Percent that matter.")
@click.option("--gate", default="", metavar="SPEC", help="As in slower:5%,size:0%; exit code 6 when one fails.")
@click.option("--threads", type=click.IntRange(0, 1024), default=0, help="Threads of the runtime [its own default].")
@click.option("--provider", default="", help="Execution provider, as with bench.")
@click.option("--rounds", type=click.IntRange(6, 1000), help="Pairs of fresh processes [12].")
@click.option(
    "--seconds", type=click.FloatRange(0.1, 86400), help="Time measured [12 for quick models, 48 for those of 10 ms]."
)
@click.option("--junit", type=click.Path(path_type=Path, dir_okay=False), help="Write the gates as JUnit XML.")
@click.option("--markdown", type=click.Path(path_type=Path, dir_okay=False), help="Write a comment for a pull request.")
@json_option
def command(
    a: str,
    b: str,
    *,
    device: str,
    until_decided: bool,
    margin: float,
    gate: str,
    junit: Path | None,
    markdown: Path | None,
    as_json: bool,
    **options: Any,
) -> int:
    """Measure bundles A and B on one device in turn, and judge the ratio of their times, B over A.

    Exit code 6 when a gate fails, or when B does not compute what its original computes.
    """
    from agent.contract.errors import BudgetError
    from packager.compare import document
    from packager.compare import gate as gates
    from packager.compare.run import compare
    from packager.device.device import Device

    wanted = gates.parse(gate) if gate else []
    scores = _scores(a, b)
    gates.check_measured(wanted, scores=scores is not None)
    chosen = {key: value for key, value in options.items() if value is not None}
    with progress() as say, Device(device, progress=say) as connected:
        found = compare(connected, a, b, margin=margin / 100, until_decided=until_decided, **chosen)
        stored = _store(connected, found, len(found.pairings) if until_decided else 0)
    results = gates.judge(wanted, found.judgement.ratio, (found.a.model_bytes, found.b.model_bytes), scores)
    for path, form in ((junit, document.junit), (markdown, document.markdown)):
        if path is not None:
            _write(path, form(found, results))
    if as_json:
        print_json({"comparison": stored, **document.document(found, results)})
    else:
        show(found, results, stored)
    wrong = [f"{one.gate}: {one.message}" for one in results if one.outcome == gates.FAILED]
    if found.b.parity is not None and found.b.parity.verdict != "pass":
        wrong.append("B does not compute what its original computes (parity)")
    for text in wrong:
        click.echo(f"edgepack: gate not met: {text}", err=True)
    return BudgetError.exit_code if wrong else 0


def _scores(a: str, b: str) -> tuple[float, float] | None:
    """The accuracies that both bundles were built with; None where one holds none."""
    from agent.contract.archive import BundleReader

    found = []
    for bundle in (a, b):
        with BundleReader(Path(bundle)) as reader:
            told = reader.manifest.facts.get("accuracy")
        if isinstance(told, dict) and isinstance(told.get("bundle"), (int, float)):
            found.append(float(told["bundle"]))
    return (found[0], found[1]) if len(found) == 2 else None  # noqa: PLR2004 - both


def _write(path: Path, text: str) -> None:
    from agent.contract.errors import UsageError

    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write: {error.strerror}", where=str(path), code="output") from error


def _store(device: Any, found: Any, looks: int) -> int | None:
    """The comparison's number; None where it cannot be stored, and then the device keeps what it measured."""
    from agent.contract.errors import UsageError
    from packager.results.pairings import PairingStore

    if not found.pairings:
        return None
    try:
        return PairingStore().add_pairings(found.pairings, found.device, found.judgement.margin, looks)[0]
    except UsageError as error:
        device.keep_delivered()
        click.echo(
            f"edgepack: {error}\n  the device keeps the comparison: edgepack results collect {found.device}", err=True
        )
        return None


def show(found: Any, results: Any, number: int | None) -> None:
    """A comparison for people."""
    from packager.compare.document import sentence

    unit = found.unit
    rows = []
    for name, side in (("A", found.a), ("B", found.b)):
        parity = side.parity.verdict if side.parity else "not checked"
        p50 = f"{side.p50:.3f}" if unit == "ms" else f"{side.p50:.0f}"
        rows.append([name, f"{side.name} {side.recipe}", mb(side.model_bytes), p50, str(side.n), parity])
    table(["", "model", "size", f"p50 {unit}", "n", "parity"], rows, right=[2, 3, 4])
    click.echo((f"comparison {number}: " if number else "") + sentence(found))
    p95 = found.judgement.p95_ratio
    if p95 is not None:
        click.echo(f"p95: {p95.estimate:.3f} times ({p95.low:.3f} to {p95.high:.3f})")
    for one in results:
        click.echo(f"gate {one.gate} {one.outcome}: {one.message}")
    show_findings(found.findings)
