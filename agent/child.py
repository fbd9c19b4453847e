"""The fresh process in which a model is loaded, checked and timed. It prints one result line and ends.

What it imports counts as the model's memory: no hashlib (OpenSSL) and no zipfile, whose work the parent has done.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Any, Dict, List

from agent import remedy
from agent.contract import codec, parity
from agent.contract.errors import DeviceError, EdgepackError, IntegrityError
from agent.contract.manifest import MANIFEST_NAME, Manifest, Tolerance, parse_manifest
from agent.probes import memory
from agent.wire import Wire, read_document

_PR_SET_PDEATHSIG = 1


def main(wire: Wire) -> int:
    """Serves one task from standard input: {"task": "check" | "round" | "profile" | ..., ...}."""
    # onnxruntime 1.32 reports its use unless told not to: a device's measurements are nobody else's.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    baseline = memory.process_resident()
    try:
        _die_with_parent(int(sys.argv[2]))
        task = read_document()
        sys.path[1:1] = task.pop("path", [])
        name = task.pop("task")
        if name == "call":
            wire.result(call(wire, **task))
        elif name == "evaluate":
            wire.result(evaluate(wire, **task))
        elif name == "serve":
            from agent import serving

            serving.serve(wire, **task)
        elif name == "check":
            wire.result(check(**task))
        else:
            from agent import rounds

            work: Any = {"round": rounds.round_, "profile": rounds.profile}[name]
            wire.result(work(wire, baseline=baseline, **task))
    except EdgepackError as error:
        wire.error(error)
        return error.exit_code
    except Exception as error:
        if not _lacks_memory(error):
            raise
        told = ": ".join(["the device ran out of memory", *str(error).strip().splitlines()[-1:]])
        wire.error(DeviceError(told[:600], fix="free memory, or use a smaller model", code="out-of-memory"))
        return DeviceError.exit_code
    return 0


def _lacks_memory(error: Exception) -> bool:
    """Whether an allocation failed: Python's own, or one in a runtime, which then raises what it likes."""
    words = ("Failed to allocate memory", "bad_alloc", "not enough memory", "Cannot allocate memory")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)


def check(*, folder: str, options: Dict[str, Any], tolerance: Any = None, golden: bool = True) -> Dict[str, Any]:
    """Loads with profiling on, runs every golden sample, compares, and counts nodes by provider."""
    import tempfile

    base = Path(folder)
    manifest = read_manifest(base)
    with tempfile.TemporaryDirectory(prefix="edgepack-") as scratch:
        runner = load_runner(manifest, base, {**options, "profile": scratch})
        feeds = golden_feeds(manifest, base) if golden and manifest.golden else [made_feed(manifest)]
        names = runner.output_names()
        # Where outputs are quantised integers, the runner knows the numbers they stand for; golden outputs are such.
        real = getattr(runner, "real_outputs", list)
        rows = [dict(zip(names, real(runner.run(feed)))) for feed in feeds]
        verdict = None
        if golden and manifest.golden:
            limits = codec.decode(Tolerance, tolerance) if tolerance else manifest.golden.tolerance
            wanted = {entry.name: load_array(base, entry.file) for entry in manifest.golden.outputs}
            verdict = parity.compare(wanted, rows, limits)
        result = {
            "parity": codec.encode(verdict),
            "placement": runner.placement(),
            "elsewhere": getattr(runner, "elsewhere", list)(),
            "version": runner.version(),
            "provider": runner.provider(),
        }
        runner.close()
    return result


def evaluate(wire: Wire, *, folder: str, options: Dict[str, Any], inputs: Dict[str, str], out: str) -> Dict[str, Any]:
    """Every sample once, its outputs written to files; see `agent.scoring`."""
    from agent import scoring

    base = Path(folder)
    runner = load_runner(read_manifest(base), base, options)
    try:
        outputs = scoring.run(runner, inputs, out, wire.progress)
        return {"outputs": outputs, "version": runner.version(), "provider": runner.provider()}
    finally:
        runner.close()


def call(wire: Wire, *, runner: str, function: str, arguments: Dict[str, Any]) -> Any:
    """A function of the runner's module, for runners that prepare."""
    module = importlib.import_module("agent.runners." + runner)
    return getattr(module, function)(progress=wire.progress, **arguments)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an unpacked bundle. Raises IntegrityError."""
    path = folder / MANIFEST_NAME
    try:
        return parse_manifest(path.read_bytes(), source=str(path))
    except OSError as error:
        raise IntegrityError("the unpacked bundle has no readable manifest: %s" % error, where=str(path)) from error


def load_runner(manifest: Manifest, folder: Path, options: Dict[str, Any]) -> Any:
    """The bundle's model in its runtime, with the bundle's session options. Raises DeviceError."""
    module = importlib.import_module("agent.runners." + manifest.runtime.name)
    import_runtime(manifest)
    runner = module.Runner()
    chosen = dict(options)
    # Some formats name their inputs and outputs, others only order them.
    chosen["inputs"] = [spec.name for spec in manifest.inputs]
    chosen["outputs"] = [spec.name for spec in manifest.outputs]
    chosen["session_options"] = {**manifest.session_options, **(options.get("session_options") or {})}
    runner.load(str(folder.joinpath(*manifest.model.split("/"))), chosen)
    return runner


def import_runtime(manifest: Manifest) -> None:
    """What the bundle's runner will import. Raises DeviceError where it is missing."""
    module = importlib.import_module("agent.runners." + manifest.runtime.name)
    _import_any(["numpy"], module, "no-numpy")
    if hasattr(module, "prepare"):
        return  # a runner that knows more than one way to its runtime imports it itself
    # A runtime may come in several packages: the first that imports is taken.
    names = getattr(module, "MODULES", [getattr(module, "MODULE", manifest.runtime.name)])
    _import_any(names, module, "no-runtime")


def _import_any(names: List[str], module: Any, code: str) -> None:
    failures = []
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            failures.append(error)
        else:
            return
    raise DeviceError(
        "%s does not import on the device: %s" % (" or ".join(names), "; ".join(str(error) for error in failures)),
        fix=remedy.runner(module),
        code=code,
    ) from failures[0]


def golden_feeds(manifest: Manifest, folder: Path) -> List[Dict[str, Any]]:
    """One dict of input arrays per golden sample."""
    import numpy as np

    if manifest.golden is None:
        return []
    arrays = {entry.name: load_array(folder, entry.file) for entry in manifest.golden.inputs}
    return [
        {name: np.ascontiguousarray(array[index]) for name, array in arrays.items()}
        for index in range(manifest.golden.samples)
    ]


def first_feed(manifest: Manifest, folder: Path) -> Dict[str, Any]:
    """What is timed: the first golden sample, or zeros."""
    return golden_feeds(manifest, folder)[0] if manifest.golden else made_feed(manifest)


def made_feed(manifest: Manifest) -> Dict[str, Any]:
    """Zeros of the inputs' shapes, free dimensions set to 1: for bundles without golden inputs."""
    import numpy as np

    return {
        spec.name: np.zeros([size if isinstance(size, int) else 1 for size in spec.shape], spec.dtype)
        for spec in manifest.inputs
    }


def load_array(folder: Path, name: str) -> Any:
    """A .npy of the bundle; never a pickle. Raises IntegrityError."""
    import numpy as np

    try:
        return np.load(str(folder.joinpath(*name.split("/"))), allow_pickle=False)
    except (OSError, ValueError) as error:
        raise IntegrityError("a golden vector cannot be read: %s" % error, where=name) from error


def _die_with_parent(parent: int) -> None:
    # A measurement must not outlive an agent that was killed, not even one that was killed before this line.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        raise DeviceError("prctl failed: %s" % os.strerror(ctypes.get_errno()))
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
