"""A device, as Python calls: push, activate, roll back, check, bench, doctor, list, remove."""

from __future__ import annotations

import dataclasses
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from agent.contract import archive, codec
from agent.contract.errors import DeviceError, TransientDeviceError, UsageError
from agent.contract.facts import DoctorReport
from agent.contract.finding import INFO, WARNING, Finding
from agent.contract.job import BenchOptions, CheckOptions
from agent.contract.pairing import Pairing, PairOptions
from agent.contract.report import Emulation, Parity, Report
from agent.contract.slot import Slot, check_slot_name
from packager.device import inventory, layers
from packager.device.answers import decoded, part
from packager.device.push import Push, PushOptions
from packager.device.runtime_packages import PACKAGES
from packager.device.session import IDLE_SECONDS, JOB_GONE, AgentSession, Progress, Reconnect, _silent

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


_DIGEST = re.compile(r"^sha256:[0-9a-f]{64}\Z")
_EMULATED_IDLE = 900.0
# Doubts that an instruction counter does not have: other work costs none, and a few inferences say as much as thousands.
_OF_TIME = {"busy", "few-samples", "busy-cores", "coarse-clock", "modes", "drift", "unsettled", "spread"}
_AGENT_ONLY = {
    "threads_auto": "--threads auto",
    "batch": "--batch",
    "streams": "--streams",
    "sustained_minutes": "--sustained",
    "profile": "--profile",
}
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
        self._delivered: list[str] = []
        self._interrupted = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._delivered = []  # whoever got a report may not have stored it: the device keeps it, too
        self.close()

    @property
    def session(self) -> AgentSession:
        """The session with the agent; connects when there is none."""
        if self._session is None:
            self.progress(f"connecting to {self.address}")
            transport = inventory.open_transport(self.entry)
            self._session = AgentSession(
                transport,
                python=self.entry.python,
                root=self.entry.root,
                # An emulated machine's seconds may take minutes here, the agent's heartbeat among them.
                idle=_EMULATED_IDLE if self.entry.kind == inventory.EMULATED else IDLE_SECONDS,
            )
            if self._interrupted:  # while it connected
                transport.interrupt()
        return self._session

    def interrupt(self) -> None:
        """For another thread: what this device is doing raises KeyboardInterrupt where it was called, and ends there, too."""
        self._interrupted = True
        if self._session is not None:
            self._session.transport.interrupt()

    def close(self) -> None:
        """Ends the connection. The device forgets the reports that it delivered meanwhile."""
        session, self._session, self._interrupted = self._session, None, False
        if session is None:
            return
        try:
            if self._delivered:
                session.forget(self._delivered)
        except DeviceError as error:
            self.progress(f"the device keeps a copy of the report: {error.what}")
        finally:
            self._delivered = []
            session.transport.close()

    def hello(self) -> dict[str, Any]:
        """Agent and Python version, the store's folder and the digests in it."""
        result: dict[str, Any] = self.session.call("hello", {})
        part(result, "root", str, self.address)
        part(result, "bundles", list, self.address)
        return result

    def doctor(self) -> DoctorReport:
        """What the device is and lacks, with the fix for each."""
        result = self.session.call("doctor", {"host_unix": time.time()}, self.progress)
        return decoded(DoctorReport, result, self.address)

    def push(
        self, bundle: str | Path, options: PushOptions | None = None, sent: Callable[[int], None] | None = None
    ) -> dict[str, Any]:
        """Brings what the device lacks of the bundle, and activates it in a slot if `options` name one. `sent` is told the
        number of bytes as they go.

        Returns device, bundle, name, `bytes_sent`, `bytes_already_there`, `already_there` (all of it), `activated` (what
        the activation said, or None), `seconds`, findings. Raises IntegrityError for a bundle that is not whole, before
        anything of it is sent, and BudgetError when it does not compute there what the original computed.
        """
        return Push(self, bundle, options or PushOptions(), sent).run()

    def activate(self, slot: str, digest: str = "", *, patience: float = 60.0) -> dict[str, Any]:
        """Makes a bundle that is there (or "": that was staged for it) the slot's current one, if it passes every check on the
        device. Returns slot, `replaced`, `path`, `checks`, findings. A lost link is no matter: the device says later what
        became of it, and one that was restarted meanwhile is asked again. It has `patience` seconds to come back.
        """
        asked = {"slot": check_slot_name(slot), "digest": digest}
        try:
            return self._switch("activate", asked, patience)
        except TransientDeviceError as error:
            if error.code != JOB_GONE or not digest:  # without a digest it may have been done, and nothing is staged
                raise
            done = self._switch("activate", asked, patience)
            if done["replaced"] == digest:  # the first time it was done, and only the answer was lost
                done["replaced"] = done["slot"].get("previous")
            return done

    def rollback(self, slot: str, leaving: str = "", *, emptying: bool = False) -> dict[str, Any]:
        """Returns the slot to its previous bundle, checked like any other. Returns what `activate` does. A slot that does not
        run the bundle `leaving` stays as it is; with `emptying` one that had nothing before has nothing again.
        """
        if leaving and not _DIGEST.match(leaving):
            raise UsageError(f"not a bundle digest: {leaving!r:.100}", expected="sha256: and 64 hex digits")
        return self._switch("rollback", {"slot": check_slot_name(slot), "leaving": leaving, "emptying": emptying})

    def _switch(self, verb: str, arguments: dict[str, Any], patience: float = 60.0) -> dict[str, Any]:
        again = Reconnect(lambda: inventory.open_transport(self.entry), patience)
        job, done = self.session.call_surely(verb, arguments, self.progress, again)
        self._delivered.append(job)
        decoded(Slot, part(done, "slot", dict, self.address), self.address)
        part(done, "checks", list, self.address)
        part(done, "path", str, self.address)
        return dict(done)

    def prune(self, keep: int) -> dict[str, Any]:
        """Deletes all bundles but those that slots hold and the `keep` used last besides: removed, kept, `freed_bytes`."""
        done = self.session.call("prune", {"keep": keep}, self.progress)
        part(done, "removed", list, self.address)
        part(done, "freed_bytes", int, self.address)
        return dict(done)

    def quota(self, **limit: int | None) -> dict[str, Any]:
        """`used_bytes` of edgepack's folder there, and `quota_bytes` (None: no limit), which `set=` changes."""
        return dict(self.session.call("quota", limit))

    def verify(self, slot: str = "") -> dict[str, Any]:
        """Checks all that is stored there, or one slot's: `bundles`, each with its `error` or None, and `problems`."""
        asked = {"slot": check_slot_name(slot) if slot else ""}
        done = self.session.call("verify", asked, self.progress)
        part(done, "bundles", list, self.address)
        part(done, "problems", list, self.address)
        return dict(done)

    @property
    def is_here(self) -> bool:
        """Whether the device is this machine."""
        return self.entry.kind == inventory.LOCAL

    def check(self, digest: str, options: CheckOptions | None = None) -> Parity | None:
        """The golden check on the device's own kernels; None when the bundle has no golden vectors."""
        asked = options or CheckOptions(digest=digest)
        result = self.session.call("check", codec.encode(asked), self.progress)
        return decoded(Parity, result["parity"], self.address) if result.get("parity") is not None else None

    def bench(self, bundle: str | Path, *, reconnect_seconds: float = 60.0, **options: Any) -> Report:
        """Pushes what is missing, checks the golden outputs, measures. `options` are those of BenchOptions.

        The report has been written on the device before it comes; when the link is lost it is fetched over a new one, for
        `reconnect_seconds` longer than the measurement should take. The device forgets it when the connection is closed.
        """
        benchmark_model = str(options.pop("benchmark_model", ""))
        if self.entry.kind == inventory.ADB:
            from packager.device.adb import bench_over_adb

            profile = options.pop("profile", False)  # this one it knows
            _refuse(options, self.address, "TFLite's benchmark_model does not know them")
            options |= {"profile": profile}

            return bench_over_adb(self.address, bundle, benchmark_model, options, self.progress)
        if benchmark_model:
            raise UsageError("benchmark_model measures phones over adb", where=self.address, expected="adb:SERIAL")
        if self.entry.kind == inventory.MCU:
            from packager.micro.bench import bench_on_board

            _refuse(options, self.address, "a microcontroller runs one inference after another")

            return bench_on_board(self.address, bundle, self.progress)
        pushed = self.push(bundle)
        if self.counts_instructions:
            # Every inference takes the same instructions: a few say as much as thousands, and the emulator is slow.
            options = {**_COUNTED, **options} if "seconds" not in options else options
        asked = BenchOptions(digest=pushed["bundle"], **options)
        expected = 60 * asked.sustained_minutes + asked.seconds + asked.rounds * asked.warmup_seconds
        again = Reconnect(lambda: inventory.open_transport(self.entry), reconnect_seconds + expected)
        try:
            job, result = self.session.call_surely("bench", codec.encode(asked), self.progress, again, 4 * expected)
        except DeviceError as error:
            if error.code in ("no-runtime", "no-numpy") and _runtime_of(bundle) in PACKAGES:
                error.fix += (
                    f"\nor let edgepack bring it: edgepack devices provision {self.address} (or bench --provision)"
                )
            raise
        report = decoded(Report, result, self.address)
        if (report.job, report.bundle) != (job, asked.digest):
            raise DeviceError(f"{self.address} answered with another report than asked for", code="reply")
        self._delivered.append(job)
        return layers.tie(self._labelled(report), bundle)

    def compare(self, a: str | Path, b: str | Path, *, reconnect_seconds: float = 60.0, **options: Any) -> Pairing:
        """Pushes what is missing of both bundles, checks both, and measures them in turn. `options` are PairOptions'.

        As with `bench`, a lost link loses nothing. On devices whose clock counts instructions `bench` says it exactly.
        """
        first, second = self.push(a)["bundle"], self.push(b)["bundle"]
        asked = PairOptions(a=first, b=second, **options)
        expected = (asked.seconds or 60.0) + asked.rounds * 4.0
        again = Reconnect(lambda: inventory.open_transport(self.entry), reconnect_seconds + expected)
        job, result = self.session.call_surely("compare", codec.encode(asked), self.progress, again, 4 * expected)
        pairing = decoded(Pairing, result, self.address)
        if (pairing.job, pairing.a.bundle, pairing.b.bundle) != (job, first, second):
            raise DeviceError(f"{self.address} answered with another comparison than asked for", code="reply")
        self._delivered.append(job)
        return pairing

    @property
    def counts_instructions(self) -> bool:
        """Whether its clock counts instructions: an emulated microcontroller, or an emulated machine that counts."""
        emulated = self.entry.kind == inventory.EMULATED and self.entry.options.get("ns_per_instruction") is not None
        return emulated or self.entry.kind == inventory.MCU

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
        if step is not None:
            # Other work on the host costs no instructions, and a few inferences say as much as thousands.
            report = dataclasses.replace(report, findings=[one for one in report.findings if one.code not in _OF_TIME])
        return dataclasses.replace(
            report,
            emulation=Emulation(cpu=str(cpu), ns_per_instruction=None if step is None else float(step)),
            findings=[finding, *report.findings],
        )

    def bundles(self) -> list[dict[str, Any]]:
        """The bundles on the device."""
        rows = part(self.session.call("list", {}), "bundles", list, self.address)
        for row in rows:
            part(row, "digest", str, self.address)
        return rows

    def full_digest(self, beginning: str) -> str:
        """The digest of the one bundle there that begins so. Raises DeviceError where none does, or more than one."""
        known = [row["digest"] for row in self.bundles()]
        prefix = beginning if beginning.startswith("sha256:") else f"sha256:{beginning}"
        found = [one for one in known if one.startswith(prefix)]
        if len(found) != 1:
            what = "more than one bundle begins" if found else "no bundle begins"
            known_ = ", ".join(known) or "none is there"
            raise DeviceError(
                f"{what} with {beginning!r}", where=self.address, expected=f"one of: {known_}", code="no-bundle"
            )
        return str(found[0])

    def remove(self, digest: str) -> int:
        """Deletes a bundle there; the number of bytes freed."""
        return part(self.session.call("remove", {"digest": digest}), "freed_bytes", int, self.address)

    def keep_delivered(self) -> None:
        """What was measured over this connection could not be stored here: the device keeps it, `collect` fetches it."""
        self._delivered = []

    def collect(self) -> list[Report | Pairing]:
        """What was measured on the device but never reached a host; `forget_collected` deletes it there. Answers of other
        verbs (an activation's) are left out.
        """
        kept = part(self.session.call("collect", {}), "kept", list, self.address)
        self._collected = [str(job) for job in kept]
        answers = [self.session.call("collect", {"job": job}) for job in self._collected]
        found = [part(answer, "result", dict, self.address) for answer in answers]
        kinds = [str(one.get("schema", "")).partition("/")[0] for one in found]
        reports = [one for one, kind in zip(found, kinds, strict=True) if kind == "edgepack.report"]
        pairings = [one for one, kind in zip(found, kinds, strict=True) if kind == "edgepack.pairing"]
        return [
            *(self._labelled(decoded(Report, one, self.address)) for one in reports),
            *(decoded(Pairing, one, self.address) for one in pairings),
        ]

    def forget_collected(self) -> None:
        """They are stored here: the device need not keep them."""
        self.session.forget(self._collected)


def _refuse(options: dict[str, Any], address: str, why: str) -> None:
    """Raises UsageError for options that only the agent knows."""
    asked = [text for word, text in _AGENT_ONLY.items() if options.pop(word, None)]
    if asked:
        raise UsageError(f"{address} cannot be measured with {', '.join(asked)}: {why}", code="protocol-options")


def _runtime_of(bundle: str | Path) -> str:
    with archive.BundleReader(bundle) as reader:
        return reader.manifest.runtime.name
