"""Accuracy where it counts: the evaluation set on the device's own kernels, beside the host's score of the same bundle."""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract import codec
from agent.contract.archive import BundleReader
from agent.contract.errors import DeviceError, UsageError
from agent.contract.job import EvalOptions
from agent.contract.report import Accuracy, Scored
from packager.accuracy.dataset import EvalSet, load_eval
from packager.accuracy.evaluate import (
    EXACT,
    Runnable,
    as_original,
    bundle_model,
    lowered_feeds,
    original_specs,
    run_lowered,
)
from packager.accuracy.metric import Metric, Score, load_metric, number
from packager.device.answers import part
from packager.device.inventory import MCU
from packager.device.session import new_job

if TYPE_CHECKING:
    import numpy as np

    from agent.contract.finding import Finding
    from packager.device.device import Device

    Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A bundle and a set made ready once, for any number of devices: files to send by sha256, and the host's score."""

    digest: str
    data: EvalSet
    model: Runnable
    metric: Metric
    files: Mapping[str, Path]
    inputs: Mapping[str, str]
    host: Score
    findings: list[Finding]


def prepare(bundle: str | Path, data: str | Path, metric: str | None, folder: Path) -> Prepared:
    """Unpacks, reads, and scores on the host. `folder` takes the files, and must live as long as the result.

    Raises UsageError for what is wrong with the set, ConvertError for a runtime that the host cannot run.
    """
    with BundleReader(bundle) as reader:
        reader.verify()
        manifest, digest = reader.manifest, reader.digest
        reader.extract(folder / "bundle")
    model = bundle_model(manifest, folder / "bundle")
    samples = load_eval(data, original_specs(manifest, model))
    chosen = load_metric(metric, samples)
    if samples.labels is None:
        raise UsageError(
            f"the metric {chosen.name} needs labels: a device has no original to agree with",
            where=samples.where,
            fix="add `labels` to the .npz",
            code="no-labels",
        )
    host = chosen.measure(run_lowered(model, samples), samples.labels, None)
    inputs, files = _files(model, samples, folder)
    return Prepared(digest, samples, model, chosen, files, inputs, host, [EXACT] if model.exact else [])


def _files(model: Runnable, samples: EvalSet, folder: Path) -> tuple[dict[str, str], dict[str, Path]]:
    """A .npy for each input, first axis the run; by the sha256 of its bytes."""
    import numpy as np

    feeds = list(lowered_feeds(model, samples))
    inputs, files = {}, {}
    for index, spec in enumerate(model.artifact.inputs):
        path = folder / f"input-{index}.npy"
        np.save(path, np.stack([feed[spec.name] for feed in feeds]), allow_pickle=False)
        with path.open("rb") as file:
            name = hashlib.file_digest(file, "sha256").hexdigest()
        inputs[spec.name], files[name] = name, path
    return inputs, files


def score_on(device: Device, bundle: str | Path, ready: Prepared, *, threads: int = 0, provider: str = "") -> Accuracy:
    """The set on this device, to which the bundle is pushed. What is there already is not sent again.

    Raises DeviceError, "no-space" where the set does not fit.
    """
    if device.entry.kind == MCU:
        raise UsageError(
            f"{device.address} runs no evaluation sets", fix="edgepack evaluate BUNDLE --eval DATA", code="no-eval"
        )
    device.push(bundle)
    asked = EvalOptions(
        digest=ready.digest,
        inputs=dict(ready.inputs),
        sizes={name: path.stat().st_size for name, path in ready.files.items()},
        threads=threads,
        provider=provider,
    )
    session = device.session
    here = session.call("evaluate", codec.encode(dataclasses.replace(asked, only_ask=True)), device.progress)
    place = part(here, "folder", str, device.address)
    for name in part(here, "missing", list, device.address):
        if name not in ready.files:
            raise DeviceError(f"{device.address} asks for a file that nobody has", code="reply")
        device.progress(f"sending {ready.files[name].stat().st_size / 1e6:.1f} MB of evaluation data")
        session.transport.put(ready.files[name], f"{place}/{name}.npy")
    job = new_job()
    result = session.call("evaluate", codec.encode(asked), device.progress, job)
    try:
        outputs = _fetch(device, result)
    finally:
        session.call("evaluate", {"forget": job})
    stacked = ready.data.stack(_rows(outputs, len(next(iter(outputs.values())))))
    found = ready.metric.measure(as_original(stacked, ready.model, ready.data), ready.data.labels, None)
    return Accuracy(
        metric=found.metric,
        samples=found.n,
        data=f"sha256:{ready.data.digest()}",
        device=_scored(found),
        host=_scored(ready.host),
    )


def _fetch(device: Device, result: Any) -> dict[str, Array]:
    import numpy as np

    place = part(result, "folder", str, device.address)
    found: dict[str, Array] = {}
    with tempfile.TemporaryDirectory(prefix="edgepack-evaluate-") as folder:
        for index, one in enumerate(part(result, "outputs", list, device.address)):
            name, file = part(one, "name", str, device.address), part(one, "file", str, device.address)
            target = Path(folder) / f"{index}.npy"
            device.session.transport.get(f"{place}/{file}", target)
            try:
                found[name] = np.load(target, allow_pickle=False)
            except ValueError as error:
                raise DeviceError(
                    f"{device.address} sent outputs that cannot be read: {error}", code="reply"
                ) from error
    if not found:
        raise DeviceError(f"{device.address} sent no outputs", code="reply")
    return found


def _rows(outputs: Mapping[str, Array], count: int) -> list[dict[str, Array]]:
    return [{name: values[index] for name, values in outputs.items()} for index in range(count)]


def _scored(score: Score) -> Scored:
    low, high = score.interval if score.interval is not None else (None, None)
    return Scored(float(score.score), None if low is None else float(low), None if high is None else float(high))


def difference(accuracy: Accuracy) -> str:
    """What the device's score says beside the host's, in points (0.01 of a score), or in percent of what is no such score."""
    device = accuracy.device.score
    told = f"{accuracy.metric} {number(device)} on the device's kernels"
    if accuracy.host is None:
        return told
    host = accuracy.host.score
    size, unit = (1.0, "points") if 0 <= host <= 1 else (abs(host), "%")
    apart = f"{100 * (device - host) / size:+.2f} {unit}"
    return f"{told}, {number(host)} on the host's ({apart}), {accuracy.samples} samples"
