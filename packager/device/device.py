"""A device, as Python calls: push, check, bench, doctor, list, remove."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from agent.contract import archive, codec
from agent.contract.facts import DoctorReport
from agent.contract.finding import INFO, WARNING, Finding
from agent.contract.job import BenchOptions, CheckOptions
from agent.contract.report import Emulation, Parity, Report
from packager.device import inventory
from packager.device.session import AgentSession, Progress, Reconnect, _silent

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


_COUNTED: dict[str, Any] = {"runs": 20, "rounds": 2, "warmup_seconds": 0.0, "warmup_runs": 3}


class Device:
    """One device, connected when first used. Use it in a `with` statement, or call `close`.

    `address` is `local`, a registered name, an ssh_config alias or `[user@]host[:port]`. Every method raises DeviceError,
    or TransientDeviceError where another try may help.
    """

    def __init__(self, address: str, *, progress: Progress = _silent) -> None:
        self.entry = inventory.resolve(address)
        self.address = address
        self.progress = progress
        self._session: AgentSession | None = None
        self._collected: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def session(self) -> AgentSession:
        """The session with the agent; connects when there is none."""
        if self._session is None:
            self.progress(f"connecting to {self.address}")
            transport = inventory.open_transport(self.entry)
            self._session = AgentSession(transport, python=self.entry.python, root=self.entry.root)
        return self._session

    def close(self) -> None:
        """Ends the connection."""
        if self._session is not None:
            self._session.transport.close()
            self._session = None

    def hello(self) -> dict[str, Any]:
        """Agent and Python version, the store's folder and the digests in it."""
        result: dict[str, Any] = self.session.call("hello", {})
        return result

    def doctor(self) -> DoctorReport:
        """What the device is and lacks, with the fix for each."""
        result = self.session.call("doctor", {"host_unix": time.time()}, self.progress)
        return codec.decode(DoctorReport, result)

    def push(self, bundle: str | Path, sent: Callable[[int], None] | None = None) -> dict[str, Any]:
        """Brings the bundle to the device, if it is not there. `sent` is told the number of bytes as they go.

        Returns digest, name, `bytes_sent`, `already_there`, `seconds`, findings. Raises IntegrityError for a bundle that
        is not whole, before anything is sent.
        """
        start = time.monotonic()
        path = Path(bundle)
        with archive.BundleReader(path) as reader:
            reader.verify()
            digest, name = reader.digest, reader.manifest.name
        size = path.stat().st_size
        here = digest in self.hello()["bundles"]
        findings: list[Any] = []
        if not here:
            session = self.session
            file = f"{digest[7:23]}-{time.time_ns():x}.edgepack"
            root = self.hello()["root"]
            self.progress(f"sending {size / 1e6:.1f} MB")
            session.transport.put(path, f"{root}/incoming/{file}", progress=sent)
            self.progress("verifying on the device")
            result = session.call("install", {"file": file, "digest": digest}, self.progress)
            findings = result["findings"]
        return {
            "device": self.address,
            "bundle": digest,
            "name": name,
            "bytes_sent": 0 if here else size,
            "already_there": here,
            "seconds": time.monotonic() - start,
            "findings": findings,
        }

    def check(self, digest: str, options: CheckOptions | None = None) -> Parity | None:
        """The golden check on the device's own kernels; None when the bundle has no golden vectors."""
        asked = options or CheckOptions(digest=digest)
        result = self.session.call("check", codec.encode(asked), self.progress)
        return codec.decode(Parity, result["parity"]) if result["parity"] is not None else None

    def bench(self, bundle: str | Path, *, reconnect_seconds: float = 60.0, **options: Any) -> Report:
        """Pushes what is missing, checks the golden outputs, measures. `options` are those of BenchOptions.

        The report has been written on the device before it comes; when the link is lost it is fetched over a new one.
        """
        if self.entry.kind == inventory.MCU:
            from packager.micro.bench import bench_on_board

            return bench_on_board(self.address, bundle, self.progress)
        pushed = self.push(bundle)
        if self.entry.kind == inventory.EMULATED and self.entry.options.get("ns_per_instruction") is not None:
            # Every inference takes the same instructions: a few say as much as thousands, and the emulator is slow.
            options = {**_COUNTED, **options} if "seconds" not in options else options
        asked = BenchOptions(digest=pushed["bundle"], **options)
        again = Reconnect(lambda: inventory.open_transport(self.entry), reconnect_seconds)
        result = self.session.call_surely("bench", codec.encode(asked), self.progress, again)
        return self._labelled(codec.decode(Report, result))

    def _labelled(self, report: Report) -> Report:
        """An emulated machine does not know that it is one: its report is told here, before anyone sees it."""
        cpu = self.entry.options.get("cpu")
        if self.entry.kind != inventory.EMULATED or cpu is None:
            return report
        step = self.entry.options.get("ns_per_instruction")
        if step is None:
            text, advice = "times of an emulated machine: they say nothing about a board", "--count counts instructions"
            finding = Finding("emulated-time", WARNING, text, advice)
        else:
            text = f"instructions on an emulated {cpu}: how much work is done, not which variant is faster on a board"
            finding = Finding("emulated-instructions", INFO, text, "measure on the board before deciding")
        return dataclasses.replace(
            report,
            emulation=Emulation(cpu=str(cpu), ns_per_instruction=None if step is None else float(step)),
            findings=[finding, *report.findings],
        )

    def bundles(self) -> list[dict[str, Any]]:
        """The bundles on the device."""
        rows: list[dict[str, Any]] = self.session.call("list", {})["bundles"]
        return rows

    def remove(self, digest: str) -> int:
        """Deletes a bundle there; the number of bytes freed."""
        return int(self.session.call("remove", {"digest": digest})["freed_bytes"])

    def collect(self) -> list[Report]:
        """The reports that were written on the device but never reached a host; `forget_collected` deletes them there."""
        kept = self.session.call("collect", {})["kept"]
        self._collected = [str(job) for job in kept]
        return [
            self._labelled(codec.decode(Report, self.session.call("collect", {"job": job})["result"]))
            for job in self._collected
        ]

    def forget_collected(self) -> None:
        """They are stored here: the device need not keep them."""
        self.session.call("collect", {"forget": self._collected})
