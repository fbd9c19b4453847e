"""JetPack's own `trtexec`, where the Python bindings are missing: it builds, runs the golden inputs, and times.

Formats and options: NVIDIA/TensorRT, samples/trtexec and samples/common (sampleOptions, sampleReporting), 8.5 to 10.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from agent.contract.errors import DeviceError
from agent.tensorrt.api import BuildRequest, Built

PLACES = ("/usr/src/tensorrt/bin/trtexec", "/usr/local/bin/trtexec")
_PARTS = {"h2d": "h2dMs", "compute": "computeMs", "d2h": "d2hMs"}
_TAIL = 2000


def find() -> Optional[str]:
    """Where it is: on the path, or where JetPack puts it."""
    found = shutil.which("trtexec")
    if found:
        return found
    return next((place for place in PLACES if os.access(place, os.X_OK)), None)


def installed_version() -> Optional[str]:
    """Its version, or None when there is no trtexec or it does not start."""
    place = find()
    if place is None:
        return None
    try:
        return version(place)
    except DeviceError:
        return None


def version(place: str) -> str:
    """The version in its first line. Raises DeviceError."""
    text = _run([place, "--help"], seconds=60.0)
    match = re.search(r"\[TensorRT v(\d+)\]", text)
    if match is None:
        raise DeviceError("trtexec does not say its version", where=text[:300], code="trtexec")
    return parse_version(match.group(1))


def parse_version(digits: str) -> str:
    """100300 is 10.3.0, 8602 is 8.6.2: two digits for minor and patch from 10 on, one and two before."""
    if len(digits) >= 6:  # noqa: PLR2004 - as above
        return "%d.%d.%d" % (int(digits[:-4]), int(digits[-4:-2]), int(digits[-2:]))
    return "%d.%d.%d" % (int(digits[0]), int(digits[1:-2]), int(digits[-2:]))


def build_arguments(place: str, onnx: str, request: BuildRequest, plan: str, release: str) -> List[str]:
    """The command that builds. `release` is trtexec's own version."""
    numbers = tuple(int(part) for part in release.split(".")[:2])
    command = [place, "--onnx=" + onnx, "--saveEngine=" + plan, "--profilingVerbosity=detailed"]
    command.append("--skipInference" if numbers >= (8, 6) else "--buildOnly")
    if request.strong:
        command.append("--stronglyTyped")
    else:
        command += ["--" + part for part in ("fp16", "int8") if part in request.precision]
    if request.dla is not None:
        command += ["--useDLACore=%d" % request.dla, "--allowGPUFallback"]
    if request.workspace_bytes:
        command.append("--memPoolSize=workspace:%d" % (request.workspace_bytes >> 20))
    if request.level is not None and numbers >= (8, 6):
        command.append("--builderOptimizationLevel=%d" % request.level)
    for shapes in request.profiles[:1]:
        for option, index in (("min", 0), ("opt", 1), ("max", 2)):
            told = ",".join("%s:%s" % (name, "x".join(map(str, three[index]))) for name, three in shapes.items())
            command.append("--%sShapes=%s" % (option, told))
    return command


def build(onnx: str, request: BuildRequest, place: Path, progress: Callable[[str], None]) -> Built:
    """The engine. Raises DeviceError with trtexec's last words."""
    tool = find()
    if tool is None:
        raise DeviceError("trtexec is not on this device", fix="sudo apt install nvidia-jetpack", code="no-runtime")
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    progress("building with trtexec")
    with tempfile.TemporaryDirectory(dir=str(place)) as folder:
        plan = os.path.join(folder, "engine.plan")
        text = _run(build_arguments(tool, onnx, request, plan, version(tool)), seconds=0.0)
        told = parse_log(text)
        if not told["passed"] or not os.path.exists(plan):
            code = "out-of-memory" if told["memory"] else "build-failed"
            raise DeviceError("trtexec built no engine", where="\n".join(told["errors"])[-_TAIL:], code=code)
        return Built(Path(plan).read_bytes(), told["seconds"] or 0.0, request.strong)


def parse_log(text: str) -> Dict[str, Any]:
    """`passed`, build `seconds`, `errors`, and whether `memory` was short."""
    told: Dict[str, Any] = {"passed": False, "seconds": None, "errors": [], "memory": False}
    for line in text.splitlines():
        if line.startswith("&&&& PASSED"):
            told["passed"] = True
        match = re.search(r"Engine (?:built in|generation completed in) ([0-9.]+)", line)
        if match:
            told["seconds"] = float(match.group(1))
        if "[E]" in line:
            told["errors"].append(line.partition("[E]")[2].strip())
        if "memory is insufficient" in line or "out of memory" in line.lower():
            told["memory"] = True
    return told


def parse_times(text: str) -> Dict[str, List[int]]:
    """The parts of each inference in an --exportTimes file, in nanoseconds. Raises DeviceError."""
    try:
        rows = json.loads(text)
        return {name: [round(float(row[key]) * 1e6) for row in rows] for name, key in _PARTS.items()}
    except (ValueError, KeyError, TypeError) as error:
        raise DeviceError("trtexec's times cannot be read: %s" % error, where=text[:200], code="trtexec") from error


def parse_outputs(text: str) -> Dict[str, Any]:
    """The outputs in an --exportOutput file: name to array. Raises DeviceError."""
    import numpy as np

    try:
        return {
            row["name"]: np.asarray(row["values"]).reshape([int(size) for size in str(row["dimensions"]).split("x")])
            for row in json.loads(text)
        }
    except (ValueError, KeyError, TypeError) as error:
        raise DeviceError("trtexec's outputs cannot be read: %s" % error, where=text[:200], code="trtexec") from error


class Engine:
    """Each run is a process of trtexec: right for the golden check; its wall time says nothing, its parts do."""

    def __init__(self, plan: str, dla: Optional[int] = None) -> None:
        self._plan = plan
        self._extra = [] if dla is None else ["--useDLACore=%d" % dla]
        self._names: List[str] = []
        self._parts: Dict[str, List[int]] = {name: [] for name in _PARTS}

    def names(self, *, inputs: bool) -> List[str]:
        """The outputs' names, known after the first run."""
        return [] if inputs else self._names

    def io(self) -> Dict[str, Any]:
        """Unknown to trtexec before it runs."""
        return {"inputs": [], "outputs": self._names}

    def run(self, feeds: Dict[str, Any]) -> List[Any]:
        """One inference on these inputs."""
        with tempfile.TemporaryDirectory() as folder:
            loads, shapes = [], []
            for index, (name, array) in enumerate(feeds.items()):
                file = os.path.join(folder, "input%d" % index)
                array.tofile(file)
                loads.append("%s:%s" % (name, file))
                shapes.append("%s:%s" % (name, "x".join(map(str, array.shape))))
            outputs, times = os.path.join(folder, "outputs.json"), os.path.join(folder, "times.json")
            command = [str(find()), "--loadEngine=" + self._plan, "--loadInputs=" + ",".join(loads)]
            command += ["--exportOutput=" + outputs, "--exportTimes=" + times, "--iterations=1", "--warmUp=0"]
            command += ["--duration=0", "--avgRuns=1", *self._extra]
            told = parse_log(_run(command, seconds=300.0))
            if not told["passed"]:
                raise DeviceError("trtexec failed", where="\n".join(told["errors"])[-_TAIL:], code="run-failed")
            values = parse_outputs(Path(outputs).read_text(encoding="utf-8"))
            for name, taken in parse_times(Path(times).read_text(encoding="utf-8")).items():
                self._parts[name] += taken[-1:]
        self._names = list(values)
        return list(values.values())

    def take_parts(self) -> Dict[str, List[int]]:
        """As trtexec's own events measured them."""
        taken, self._parts = self._parts, {name: [] for name in _PARTS}
        return taken

    def layers(self) -> List[Dict[str, Any]]:
        """No table: trtexec prints one only on request."""
        return []

    def layer_times(self) -> List[Dict[str, Any]]:
        """None: each inference is a process of trtexec's own."""
        return []

    def close(self) -> None:
        """Nothing is held."""


def _run(command: List[str], seconds: float) -> str:
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds or None, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeviceError("trtexec does not run: %s" % error, where=" ".join(command[:1]), code="trtexec") from error
    return done.stdout.decode("utf-8", "replace")
