"""A fleet: real sshd processes on loopback in groups, and 10,000 simulated devices; 5 % fail, each in its own way.

python benchmarks/fleet.py loopback [--devices 200] [--group 20]
python benchmarks/fleet.py simulated [--devices 10000]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from agent.contract.errors import DeviceError, TransientDeviceError
from packager.device import fleet_file, inventory
from packager.device.device import Device
from packager.device.session import AgentSession
from packager.device.transport import Completed
from packager.fleet.run import Fleet, Limits
from tests.agent.bundles import write_bundle
from tests.device.sshd import Client, Sshd, make_key, make_user, remove_user

SHARE = 20  # one in so many fails
REAL_FAULTS = ("dead", "untrusted", "no-python", "read-only", "chatter")
FAULTS = ("refused", "gone", "hang", "garbage", "liar", "killed", "bug", "flood")


def _memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Simulated:
    """A transport that answers as an agent does, after `delay` seconds, or as its fault says."""

    def __init__(self, name: str, fault: str, delay: float) -> None:
        self.name, self._fault, self._delay = name, fault, delay
        self._ended = threading.Event()

    def run(self, argv: Any, stdin: Any = b"", deadline: Any = None, on_line: Any = None, **_: Any) -> Completed:
        """See packager.protocols.Transport.run."""
        del stdin, deadline
        if self._ended.wait(self._delay):
            raise KeyboardInterrupt
        if argv[2] == "-c":
            paths = {path: {"path": path, "exists": True} for path in argv[4:]}
            told = {"python": [3, 11, 2], "executable": "/usr/bin/python3", "home": "/home/edge", "paths": paths}
            return Completed(0, json.dumps(told).encode(), b"")
        if self._fault == "refused":
            raise DeviceError("refused", code="login")
        if self._fault == "gone":
            raise TransientDeviceError("the link was lost", code="link-lost")
        if self._fault == "hang":
            self._ended.wait()
            raise KeyboardInterrupt
        if self._fault == "bug":
            raise ZeroDivisionError
        if self._fault == "flood":
            for _ in range(2000):
                on_line(b'{"type": "progress", "message": "' + b"x" * 1000 + b'"}')
        lines = {"garbage": b"\x1b[2Jlogin banner", "liar": b'{"type": "result", "result": {"root": 1}}', "killed": b""}
        line = lines.get(self._fault, b'{"type": "result", "result": {"root": "/r", "bundles": []}}')
        if line and self._fault != "flood":
            on_line(line)
        return Completed(137 if self._fault == "killed" else 0, b"", b"")

    def interrupt(self) -> None:
        """See Interruptible."""
        self._ended.set()

    def close(self) -> None:
        """Nothing is kept open."""


class SimulatedDevice(Device):
    """A Device on such a transport."""

    def __init__(self, name: str, fault: str, delay: float) -> None:
        super().__init__("local")
        self.address = name
        self._session = AgentSession(Simulated(name, fault, delay))  # type: ignore[arg-type]


def simulated(count: int, at_once: int, delay: float) -> dict[str, Any]:
    """`count` devices, each asked for its store."""
    faults = {f"d{number:05}": FAULTS[number // SHARE % len(FAULTS)] for number in range(0, count, SHARE)}
    names = [f"d{number:05}" for number in range(count)]
    before, start, codes, wrong = _memory_mb(), time.perf_counter(), Counter[str](), []

    def opened(name: str) -> Device:
        return SimulatedDevice(name, faults.get(name, ""), delay)

    for outcome in Fleet(opened, Device.hello, Limits(at_once, 20.0, 1, 0.05)).run(names):
        codes[outcome.error.code if outcome.error else "done"] += 1
        if (outcome.error is not None) != (outcome.device in faults):
            wrong.append(outcome.device)
    seconds = time.perf_counter() - start
    return {
        "devices": count, "at_once": at_once, "delay_s": delay, "seconds": round(seconds, 1), "faulty": len(faults),
        "outcomes": codes, "wrong": wrong, "host_mb_before": round(before, 1), "host_mb_peak": round(_memory_mb(), 1),
        "threads_left": threading.active_count() - 1,
    }  # fmt: skip


def _group(numbers: range, base: Path, key: Path, user: str, client: Client, bundle: Path, at_once: int) -> Any:
    """Starts so many devices, pushes to them all, stops them: seconds by device, error codes."""
    lines, devices, expected = [], [], {}
    try:
        for number in numbers:
            fault = REAL_FAULTS[number // SHARE % len(REAL_FAULTS)] if number % SHARE == 0 else ""
            config = "ForceCommand echo hello" if fault == "chatter" else ""
            device = Sshd(user, key.with_name(key.name + ".pub").read_text(), config=config)
            devices.append(device)
            device.start()
            if fault != "untrusted":
                client.trust(device)
            if fault == "dead":
                device.stop()
            python = "/nowhere/python" if fault == "no-python" else device.python
            root = "/proc/edgepack" if fault == "read-only" else "~/.edgepack"
            name = f"d{number:03}"
            expected[name] = fault
            lines.append(f'[devices.{name}]\naddress = "{device.address}"\npython = "{python}"\nroot = "{root}"\n')
            lines.append('groups = ["lab"]\n')
        file = base / "fleet.toml"
        file.write_text("".join(lines))
        os.environ[fleet_file.VARIABLE] = str(file)
        names = sorted(inventory.everything())
        start = time.perf_counter()
        outcomes = list(Fleet(Device, lambda one: one.push(bundle), Limits(at_once, 120.0, 1, 0.2)).run(names))
        return outcomes, time.perf_counter() - start, expected
    finally:
        for device in devices:
            device.remove()


def loopback(count: int, group: int, at_once: int) -> dict[str, Any]:
    """`count` sshd devices, `group` alive at a time."""
    user = make_user()
    codes, wrong, total, one = Counter[str](), [], 0.0, []
    faulty = 0
    try:
        with tempfile.TemporaryDirectory() as folder:
            base = Path(folder)
            os.environ.update(HOME=str(base / "home"), XDG_CONFIG_HOME=str(base / "config"))
            for name in ("SSH_AUTH_SOCK", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
                os.environ.pop(name, None)
            key = make_key(base / "id_ed25519")
            client = Client(base / "home", key)
            bundle = base / "small.edgepack"
            write_bundle(bundle)
            for begin in range(0, count, group):
                numbers = range(begin, min(count, begin + group))
                outcomes, seconds, expected = _group(numbers, base, key, user, client, bundle, at_once)
                total += seconds
                for outcome in outcomes:
                    fault = expected[outcome.device]
                    faulty += bool(fault)
                    codes[f"{fault}: {outcome.error.code}" if outcome.error else "done"] += 1
                    if (outcome.error is not None) != bool(fault):
                        wrong.append([outcome.device, fault, str(outcome.error)])
            alone, seconds, _ = _group(range(1, 2), base, key, user, client, bundle, 1)
            one = [seconds, alone[0].error is None]
    finally:
        remove_user(user)
    return {
        "devices": count, "alive_at_once": group, "at_once": at_once, "seconds": round(total, 1), "faulty": faulty,
        "one_alone_seconds": round(one[0], 2), "one_alone_done": one[1], "outcomes": codes, "wrong": wrong,
        "host_mb_peak": round(_memory_mb(), 1),
    }  # fmt: skip


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["loopback", "simulated"])
    parser.add_argument("--devices", type=int)
    parser.add_argument("--group", type=int, default=20)
    parser.add_argument("--at-once", type=int)
    parser.add_argument("--delay", type=float, default=0.05)
    asked = parser.parse_args()
    if asked.what == "simulated":
        result = simulated(asked.devices or 10_000, asked.at_once or 64, asked.delay)
    else:
        result = loopback(asked.devices or 200, asked.group, asked.at_once or 16)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
