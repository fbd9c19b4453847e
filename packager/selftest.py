"""The whole road on somebody's board, written into one document to send back: doctor, every runtime found, every recipe."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from agent.contract import codec
from agent.contract.errors import ConvertError, DeviceError, EdgepackError, to_wire
from agent.contract.facts import DoctorReport
from packager import demo_data, registry
from packager.device.device import Device
from packager.pipeline import build
from packager.profile import load_profile, profile_names
from packager.version import __version__

SCHEMA = "edgepack.selftest/1"
# Names and places of the owner's: not needed to understand the board, so left blank.
_BLANK = {"hostname": "", "root": "", "python_path": ""}


def selftest(
    device: Device,
    *,
    profile: str = "",
    runtimes: Sequence[str] = (),
    seconds: float = 1.0,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Builds the demo's classifier in every recipe of every runtime that the board holds, and pushes, checks and measures
    each. A step that fails stands in the document with its error, and the next one follows.

    `profile` "" takes the device's registered one, else the one its model names; `runtimes` () takes all that it holds.
    The owner's host name and folders are left blank.
    Raises DeviceError when the board cannot be reached, or no profile fits it.
    """
    progress("reading the board")
    report = device.doctor()
    chosen = load_profile(profile or device.entry.profile or _profile_of(report))
    held = {one.name for one in report.facts.runtimes if one.version}
    for name in runtimes:
        registry.target(name)
        if name not in held:
            raise DeviceError(
                f"the board does not hold {name}", expected=f"one of: {', '.join(sorted(held)) or 'none'}"
            )
    held &= set(runtimes or held)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="edgepack-selftest-") as folder:
        for runtime, recipe in _cases(chosen, held):
            progress(f"{runtime} {recipe}")
            rows.append(_case(device, chosen.name, runtime, recipe, Path(folder), seconds))
    doctor = codec.encode(report)
    doctor["facts"] |= _BLANK
    doctor["interpreters"] = [{**one, "path": ""} for one in doctor["interpreters"]]
    return {
        "schema": SCHEMA,
        "edgepack": __version__,
        "made_unix": time.time(),
        "profile": chosen.name,
        "doctor": doctor,
        "runs": rows,
        "passed": bool(rows) and all("error" not in row for row in rows),
    }


def _cases(profile: Any, held: set[str]) -> Iterator[tuple[str, str]]:
    for name in registry.target_names():
        if name in held and name in profile.runtimes:
            yield from ((name, recipe) for recipe in registry.target(name).recipes)


def _case(device: Device, profile: str, runtime: str, recipe: str, folder: Path, seconds: float) -> dict[str, Any]:
    row: dict[str, Any] = {"runtime": runtime, "recipe": recipe}
    started = time.monotonic()
    try:
        built = build(
            str(demo_data.model_path()),
            profile,
            runtime=runtime,
            recipe=recipe,
            calibration=str(demo_data.calibration_path()),
            output=folder / f"{runtime}-{recipe}.edgepack",
        )
        row["built"] = {key: value for key, value in built.document().items() if key != "bundle"}
        report = device.bench(built.bundle, seconds=seconds, rounds=2)
        row["report"] = codec.encode(report)
        row["report"]["facts"] |= _BLANK
        if report.parity is not None and report.parity.verdict != "pass":
            raise DeviceError("the board does not compute what the original computes", code="parity")
        device.remove(built.digest)
    except EdgepackError as error:
        # The classifier is an ONNX file: what cannot be made of one, the board is not to blame for.
        key = "not_built" if isinstance(error, ConvertError) and "built" not in row else "error"
        row[key] = to_wire(error)
    row["seconds"] = round(time.monotonic() - started, 3)
    return row


def _profile_of(report: DoctorReport) -> str:
    """The profile whose title begins with the board's own name, else the generic one of its processor."""
    model = report.facts.model.lower()
    named = [name for name in profile_names() if load_profile(name).title.partition(",")[0].lower() == model]
    if named:
        return named[0]
    machine, features = report.facts.machine, set(report.facts.cpu_features)
    generic = {
        "x86_64": "linux-x86-64-vnni" if features & {"vnni", "avx512_vnni", "avx_vnni"} else "linux-x86-64",
        "aarch64": "linux-arm64",
        "armv7l": "linux-armv7",
    }.get(machine)
    if generic is None:
        raise DeviceError(f"no profile fits {report.facts.model} ({machine})", fix="name one with --profile")
    return generic
