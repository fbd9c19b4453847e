"""A phone over adb: the model pushed and timed by TFLite's own `benchmark_model`, which the user supplies."""

from __future__ import annotations

import dataclasses
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agent.contract import archive
from agent.contract.errors import DeviceError, TransientDeviceError, UsageError
from agent.contract.facts import DeviceFacts
from agent.contract.finding import INFO, WARNING, Finding
from agent.contract.manifest import Manifest
from agent.contract.report import Emulation, ProbeReading, Report, Round, RuntimeUsed
from packager.device import adb_layers

PREFIX = "adb:"
_SERIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_FOLDER = "/data/local/tmp/edgepack"
_DEADLINE = 600.0
_ROUNDS = 3
_FLAGS = {"threads": "num_threads", "runs": "num_runs", "seconds": "min_secs"}
_COUNT = re.compile(r"count=(\d+)\b.*\bavg=([0-9.e+]+)")
_TIMINGS = re.compile(r"Init: ([0-9.e+]+), First inference: ([0-9.e+]+), Warmup \(avg\): ([0-9.e+]+)")
_MEMORY = re.compile(r"overall=([0-9.e+]+)")
_EMULATORS = ("goldfish", "ranchu", "cutf_cvm")


@dataclasses.dataclass(frozen=True)
class Timing:
    """What one run of benchmark_model told: microseconds, and bytes of memory that the run added (None: not told)."""

    count: int
    average_us: float
    init_us: float
    first_us: float
    memory_bytes: int | None


def bench_over_adb(
    address: str, bundle: str | Path, benchmark_model: str, options: Mapping[str, Any], progress: Callable[[str], None]
) -> Report:
    """The report of a phone. `address` is "adb:SERIAL", `benchmark_model` the path of the Android binary on the host;
    of bench's `options` it has threads, runs, seconds, rounds and profile.

    Raises UsageError without the binary or for a bad serial, DeviceError (exit code 4) for a phone that is not there,
    TransientDeviceError when it goes away.
    """
    if options.get("provider") or options.get("lock_clocks"):
        raise UsageError("over adb there is no --provider and no --lock-clocks", where=address, code="adb-options")
    phone = Phone(address.removeprefix(PREFIX))
    started = time.time()
    with archive.BundleReader(bundle) as reader, tempfile.TemporaryDirectory(prefix="edgepack-adb-") as folder:
        reader.verify()
        manifest, digest = reader.manifest, reader.digest
        _check(manifest, benchmark_model)
        phone.check_there()
        model = Path(folder) / "model.tflite"
        model.write_bytes(reader.read(manifest.model))
        there = f"{_FOLDER}/{digest[7:23]}"
        progress(f"sending {model.stat().st_size / 1e6:.1f} MB")
        phone.shell("mkdir", "-p", there)
        phone.adb("push", str(model), f"{there}/model.tflite")
        phone.adb("push", benchmark_model, f"{there}/benchmark_model")
        phone.shell("chmod", "755", f"{there}/benchmark_model")
    timings, rounds = [], int(options.get("rounds", _ROUNDS))
    flags = [f"--{flag}={options[key]}" for key, flag in _FLAGS.items() if options.get(key)]
    for number in range(rounds):
        progress(f"round {number + 1} of {rounds}")
        talk = phone.shell(f"{there}/benchmark_model", f"--graph={there}/model.tflite", *flags)
        timings.append(parse_benchmark(talk))
    profile = None
    if options.get("profile"):
        progress("profiling operators")
        argv = [f"{there}/benchmark_model", f"--graph={there}/model.tflite", *flags, adb_layers.FLAG]
        profile = adb_layers.parse_layers(phone.shell(*argv))
    phone.shell("rm", "-r", there)
    report = _report(phone, address, (manifest, digest), timings, started, int(options.get("threads", 0)))
    return dataclasses.replace(report, profile=profile)


def _check(manifest: Manifest, benchmark_model: str) -> None:
    if manifest.runtime.name != "tflite":
        raise DeviceError(
            f"benchmark_model does not run {manifest.runtime.name} bundles",
            expected="a TFLite bundle: edgepack build MODEL --target android-arm64",
            code="no-runner",
        )
    if not benchmark_model:
        raise UsageError(
            "a phone over adb has no agent of edgepack's: it is measured by TFLite's benchmark_model",
            expected="--benchmark-model PATH, the binary built for the phone's processor",
            fix="over SSH (Termux, a rooted phone) the agent runs: edgepack bench BUNDLE [user@]host[:port]",
            code="no-benchmark-model",
        )
    if not Path(benchmark_model).is_file():
        raise UsageError("there is no such file", where=benchmark_model, code="no-benchmark-model")


class Phone:
    """One phone, by its serial, through the `adb` client of this host."""

    def __init__(self, serial: str) -> None:
        if not _SERIAL.fullmatch(serial):
            raise UsageError(
                f"{serial!r} is no serial of a phone", expected="as `adb devices` prints it", code="bad-address"
            )
        self.serial = serial
        self.name = PREFIX + serial

    def check_there(self) -> None:
        """Raises DeviceError, code "no-device", when adb does not reach the phone; it tells which ones it does."""
        if not shutil.which("adb"):
            raise DeviceError("adb is needed", where="this host", fix="sudo apt-get install adb", code="no-adb")
        done = self._run(["get-state"], 60.0)
        told = (done.stderr or done.stdout).strip()
        if done.returncode == 0 and done.stdout.strip() == "device":
            return
        listed = subprocess.run(["adb", "devices"], capture_output=True, text=True, timeout=60.0, check=False)
        others = [line.split()[0] for line in listed.stdout.splitlines() if line.endswith("\tdevice")]
        raise DeviceError(
            f"adb does not reach the phone: {told.splitlines()[-1] if told else 'no answer'}",
            where=self.name,
            expected=f"one of: {', '.join(others)}" if others else "a phone that `adb devices` lists; it lists none",
            fix="connect it, switch USB debugging on, and accept this host's key on its screen",
            code="no-device",
        )

    def adb(self, *argv: str, deadline: float = _DEADLINE) -> str:
        """Standard output and standard error of an adb command. Raises DeviceError when it fails."""
        done = self._run(argv, deadline)
        talk = done.stdout + done.stderr
        if done.returncode:
            gone = any(word in talk for word in ("device offline", "not found", "no devices", "closed"))
            kind = TransientDeviceError if gone and "inaccessible" not in talk else DeviceError
            raise kind(
                f"`adb {argv[0]}` ended with {done.returncode}", where=f"{self.name}: {talk.strip()[-800:]}", code="adb"
            )
        return talk

    def shell(self, *argv: str, deadline: float = _DEADLINE) -> str:
        """A command on the phone; every word is quoted for its shell."""
        return self.adb("shell", shlex.join(argv), deadline=deadline)

    def _run(self, argv: tuple[str, ...] | list[str], deadline: float) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                ["adb", "-s", self.serial, *argv],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=deadline,
                stdin=subprocess.DEVNULL,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise TransientDeviceError(
                f"`adb {argv[0]}` did not end within {deadline:g} s", where=self.name, code="deadline"
            ) from error


def parse_benchmark(talk: str) -> Timing:
    """What benchmark_model printed: the last `count=` line is the measurement, those before it are the warm-up.

    Raises DeviceError, code "benchmark-model", for anything else: its last words are told.
    """
    counted, timings, memory = _COUNT.findall(talk), _TIMINGS.search(talk), _MEMORY.findall(talk)
    if not counted or timings is None:
        raise DeviceError(
            "benchmark_model gave no timings",
            where=talk.strip()[-800:],
            expected="a line `Inference timings in us: Init: ..., First inference: ...`",
            fix="try it by hand: adb shell PATH/benchmark_model --graph=PATH/model.tflite",
            code="benchmark-model",
        )
    count, average = counted[-1]
    return Timing(
        count=int(count),
        average_us=float(average),
        init_us=float(timings[1]),
        first_us=float(timings[2]),
        memory_bytes=round(float(memory[-1]) * 1e6) if memory else None,
    )


def _report(
    phone: Phone,
    address: str,
    bundle: tuple[Manifest, str],
    timings: list[Timing],
    started: float,
    threads: int,
) -> Report:
    manifest, digest = bundle
    facts = _facts(phone, address)
    hardware = phone.shell("getprop", "ro.hardware").strip()
    emulated = hardware in _EMULATORS
    return Report(
        job=f"adb-{time.time_ns():x}",
        bundle=digest,
        name=manifest.name,
        target=manifest.target,
        recipe=str(manifest.recipe.get("name", "")),
        runtime=RuntimeUsed(name="benchmark_model", version="as supplied", provider="its default", threads=threads),
        parity=None,
        rounds=[_round(one) for one in timings],
        facts=facts,
        model_bytes=manifest.files[manifest.model].size,
        bundle_bytes=sum(entry.size for entry in manifest.files.values()) + len(manifest.to_bytes()),
        source_bytes=manifest.source.size_bytes,
        started_unix=started,
        findings=[*_findings(timings, hardware if emulated else ""), *manifest.findings],
        emulation=Emulation(cpu=facts.cpu_model or hardware, ns_per_instruction=None) if emulated else None,
    )


def _findings(timings: list[Timing], emulator: str) -> list[Finding]:
    counts = ", ".join(str(one.count) for one in timings)
    found = [
        Finding(
            "averages",
            WARNING,
            f"each sample is the average of one run of benchmark_model ({counts} inferences): no tail is in it",
            "over SSH the agent keeps every inference",
        ),
        Finding(
            "parity-on-host-only",
            WARNING,
            "benchmark_model shows no outputs: the golden check ran on the host, not on a phone",
            "over SSH (Termux) the agent checks them on the phone's own kernels",
        ),
    ]
    memory = max((one.memory_bytes for one in timings if one.memory_bytes is not None), default=None)
    if memory is not None:
        text = f"benchmark_model tells of {memory / 1e6:.1f} MB of memory more than at its start"
        found.append(Finding("memory", INFO, text, ""))
    if emulator:
        text = f"not run on a phone: {emulator} is Android's emulator, and its times are of no device"
        found.insert(0, Finding("emulated-time", WARNING, text, "measure on a phone"))
    else:
        text = "temperature and clocks were not read: phones slow down as they heat"
        found.append(Finding("no-probes", INFO, text, "measure again after some minutes"))
    return found


def _round(one: Timing) -> Round:
    nothing = ProbeReading(unread={"all": "not read over adb"})
    return Round(
        load_ns=round(one.init_us * 1e3),
        first_ns=round(one.first_us * 1e3),
        warmup_ns=[],
        samples_ns=[round(one.average_us * 1e3)],
        peak_memory_bytes=None,
        baseline_memory_bytes=None,
        before=nothing,
        after=nothing,
    )


def _facts(phone: Phone, address: str) -> DeviceFacts:
    def prop(name: str) -> str:
        return phone.shell("getprop", name).strip()

    cores = phone.shell("nproc").strip()
    return DeviceFacts(
        hostname=address,
        model=f"{prop('ro.product.manufacturer')} {prop('ro.product.model')}".strip(),
        machine=phone.shell("uname", "-m").strip(),
        kernel=phone.shell("uname", "-r").strip(),
        os=f"Android {prop('ro.build.version.release')}",
        python="",
        python_path="",
        libc="bionic",
        numpy=None,
        runtimes=[],
        cpu_model=prop("ro.soc.model"),
        cpu_cores=int(cores) if cores.isdigit() else 0,
        cpu_features=[],
        memory_total=None,
        memory_available=None,
        disk_free=None,
        root=_FOLDER,
        clock_unix=time.time(),
        unread=dict.fromkeys(("numpy", "memory_total", "memory_available", "disk_free"), "not read over adb"),
    )
