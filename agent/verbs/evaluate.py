"""Runs a bundle on an evaluation set: which of its files are here, then all of them through the device's own kernels."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import Any, Dict, List

from agent import features, launch, preparing, trust
from agent.contract import archive, codec
from agent.contract.errors import DeviceError, IntegrityError, UsageError
from agent.contract.job import EvalOptions, Job
from agent.disk import disk_errors, no_space
from agent.store import SPARE_BYTES, Store
from agent.wire import Wire

_HEX = re.compile(r"^[0-9a-f]{64}\Z")
_JOB = re.compile(r"^[A-Za-z0-9-]{1,64}\Z")


def run(job: Job, wire: Wire) -> Dict[str, Any]:
    """`arguments`: EvalOptions; or `forget`, the job whose outputs the host has."""
    store = Store(job.root)
    if "forget" in job.arguments:
        for path in store.incoming.glob("eval-%s-*.npy" % _job(str(job.arguments["forget"]))):
            path.unlink()
        return {}
    options = codec.decode(EvalOptions, job.arguments, "$.arguments")
    for name in [*options.inputs.values(), *options.sizes]:
        if not _HEX.match(name):
            raise UsageError("not a sha256: %.100r" % name)
    folder = store.root / "data"
    with disk_errors(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
    if options.only_ask:
        return _ask(folder, options)
    return _evaluate(job.id, store, folder, options, wire)


def _ask(folder: Path, options: EvalOptions) -> Dict[str, Any]:
    """The files that are missing. Sets of earlier evaluations make room; raises DeviceError where that is not enough."""
    missing = [name for name in options.sizes if not (folder / (name + ".npy")).is_file()]
    needed = sum(options.sizes[name] for name in missing) + SPARE_BYTES
    others = [path for path in folder.glob("*.npy") if path.stem not in options.sizes]
    for path in sorted(others, key=lambda one: one.stat().st_mtime):
        if shutil.disk_usage(str(folder)).free >= needed:
            break
        path.unlink()
    free = shutil.disk_usage(str(folder)).free
    if missing and free < needed:
        error = no_space(folder, needed, free)
        error.what = "the evaluation set does not fit on the device: %.1f MB are needed, %.1f MB are free" % (
            needed / 1e6,
            free / 1e6,
        )
        error.fix = "evaluate on fewer samples, or free space there"
        raise error
    return {"missing": missing, "folder": str(folder)}


def _evaluate(job: str, store: Store, folder: Path, options: EvalOptions, wire: Wire) -> Dict[str, Any]:
    bundle = store.get(options.digest)
    manifest = archive.verify_folder(bundle, options.digest)
    trust.require(store.root, bundle, options.digest)
    features.check_cpu(manifest)
    features.check_runtime(manifest)
    files = {name: folder / (digest + ".npy") for name, digest in options.inputs.items()}
    for path in set(files.values()):
        _verify(path)
    chosen = {"threads": options.threads, "provider": options.provider}
    prepared = preparing.prepare(manifest, str(bundle), chosen, str(store.root), wire)
    out = store.incoming / ("eval-%s" % _job(job))
    task = {
        "task": "evaluate",
        "folder": str(bundle),
        "options": prepared.options,
        "inputs": {name: str(path) for name, path in files.items()},
        "out": str(out),
    }
    wire.progress("running the evaluation set")
    try:
        result: Dict[str, Any] = launch.in_child(task, wire.progress)
    except BaseException:
        _clear(list(store.incoming.glob(out.name + "-*.npy")))
        raise
    return {**result, "folder": str(store.incoming)}


def _verify(path: Path) -> None:
    total = hashlib.sha256()
    try:
        with open(str(path), "rb") as file:
            for piece in iter(lambda: file.read(1 << 20), b""):
                total.update(piece)
    except FileNotFoundError as error:
        raise DeviceError("the evaluation set is not on this device", where=path.name, code="no-data") from error
    if total.hexdigest() != path.stem:
        path.unlink()  # so that the next try sends it again
        raise IntegrityError("the evaluation set has changed on the device", where=path.name, fix="try again")


def _clear(paths: List[Path]) -> None:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(str(path))


def _job(text: str) -> str:
    if not _JOB.match(text):
        raise UsageError("not a job id: %.100r" % text, expected="letters, digits and -")
    return text
