"""`bench --eval`: the set is made ready once, then scored on each device."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.contract.report import Report
    from packager.accuracy.on_device import Prepared
    from packager.device.device import Device


class Scorer:
    """Adds the accuracy to reports; without data it leaves them as they are."""

    def __init__(self, bundle: str, data: str | None, metric: str | None, options: dict[str, Any]) -> None:
        self._bundle, self._data, self._metric = bundle, data, metric
        self._options = {key: value for key, value in options.items() if key in {"threads", "provider"}}
        self._ready: Prepared | None = None

    @contextlib.contextmanager
    def ready(self, say: Callable[[str], None]) -> Iterator[None]:
        """Reads the set and scores it on the host, before any device is asked."""
        if self._data is None:
            if self._metric is not None:
                from agent.contract.errors import UsageError

                raise UsageError("--metric without samples to score", fix="--eval DATA.npz", code="no-eval")
            yield
            return
        from packager.accuracy.on_device import prepare

        with tempfile.TemporaryDirectory(prefix="edgepack-evaluate-") as folder:
            say("scoring on this machine")
            self._ready = prepare(self._bundle, self._data, self._metric, Path(folder))
            yield

    def measure(self, device: Device, bench: Callable[[], Report]) -> Report:
        """The report with the accuracy on this device, which is taken first: a set that does not fit costs no measurement."""
        if self._ready is None:
            return bench()
        from packager.accuracy.on_device import score_on

        accuracy = score_on(device, self._bundle, self._ready, **self._options)
        report, ready = bench(), self._ready
        return dataclasses.replace(
            report, accuracy=accuracy, findings=[*report.findings, *ready.findings, *ready.host.findings()]
        )
