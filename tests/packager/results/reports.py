"""Reports made without a device, and a PostgreSQL server of the test's own."""

import contextlib
import dataclasses
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from agent.contract.facts import DeviceFacts
from agent.contract.finding import Finding
from agent.contract.report import (
    Accuracy,
    Emulation,
    OutputParity,
    Parity,
    ProbeReading,
    Report,
    Round,
    RuntimeUsed,
    Scored,
)

FACTS = DeviceFacts("kitchen", "Raspberry Pi 5", "aarch64", "6.6", "Debian 12", "3.11.2", "/usr/bin/python3", "glibc-2.36",
                    "1.26.4", [], "Cortex-A76", 4, ["neon"], 8 << 30, 6 << 30, None, "/home/pi", 1.7e9)  # fmt: skip
EMULATED = Emulation(cpu="cortex-a76", ns_per_instruction=2.0)


def report(job, median=1_000_000, *, rounds=3, n=120, **changes):
    """A report whose samples lie around `median` (ns), the same for the same arguments."""
    hot = [ProbeReading("performance", [2400.0 - 100 * k], 50.0 + 4 * k) for k in range(rounds + 1)]
    samples = [[round(median * (1 + 0.1 * ((7 * i + 3 * k) % 11) / 11)) for i in range(n)] for k in range(rounds)]
    made = Report(
        job=job,
        bundle="sha256:" + "a" * 64,
        name="tiny",
        target="raspberry-pi-5",
        recipe="int8",
        runtime=RuntimeUsed("onnxruntime", "1.32.0", "CPUExecutionProvider", 1, {"CPUExecutionProvider": 6}),
        parity=Parity("pass", 4, [OutputParity("scores", 0.998, 0.01, 1.0, "pass")]),
        rounds=[
            Round(5_000_000, 3_000_000, [2_000_000], some, 40_000_000, 10_000_000, hot[k], hot[k + 1])
            for k, some in enumerate(samples)
        ],
        facts=FACTS,
        model_bytes=1000,
        bundle_bytes=2000,
        source_bytes=4000,
        started_unix=1.7e9,
        findings=[Finding("busy", "warning", "the device is busy", "stop the other work")],
    )
    return dataclasses.replace(made, **changes)


def scored(score=0.9):
    """An accuracy of 200 samples."""
    return Accuracy(
        "top1", 200, "sha256:" + "d" * 64, Scored(score, score - 0.04, score + 0.04), Scored(0.91, 0.87, 0.95)
    )


def _tool(name):
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else shutil.which(name)


HAS_POSTGRESQL = _tool("initdb") is not None and _tool("postgres") is not None


class Server:
    """PostgreSQL on a socket in a folder of its own, by an unprivileged user; ended by its own process id."""

    def __init__(self):
        self._user = pwd.getpwnam("postgres" if os.geteuid() == 0 else pwd.getpwuid(os.getuid()).pw_name)
        # A socket's path may have 107 characters: pytest's own folders are too long, and closed to another user.
        self.folder = Path(tempfile.mkdtemp(prefix="edgepack-pg-"))
        self._process = None
        if os.geteuid() == 0:
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        argv = [
            _tool("initdb"),
            "-D",
            str(self.folder / "data"),
            "-U",
            "edge",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-sync",
        ]
        subprocess.run(argv, check=True, capture_output=True, **self._as())

    def _as(self):
        env = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": [], "env": env, "cwd": "/"} \
            if os.geteuid() == 0 else {"env": env}  # fmt: skip

    @property
    def address(self):
        return f"postgresql://edge:secret@/postgres?host={self.folder}"

    def start(self):
        argv = [_tool("postgres"), "-D", str(self.folder / "data"), "-k", str(self.folder), "-c", "listen_addresses="]
        self._process = subprocess.Popen(
            [*argv, "-c", "fsync=off"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **self._as()
        )
        end = time.monotonic() + 60
        while subprocess.run([_tool("pg_isready"), "-q", "-h", str(self.folder)], check=False).returncode:
            assert self._process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.1)
        return self

    def stop(self):
        """At once: whoever is connected is cut off."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(30)
            self._process = None

    def remove(self):
        self.stop()
        shutil.rmtree(self.folder)


@contextlib.contextmanager
def server():
    """A server that runs."""
    made = Server()
    try:
        yield made.start()
    finally:
        made.remove()
