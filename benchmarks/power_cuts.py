"""Power cuts: a device whose every process is killed at random moments of push, activate, rollback and prune.

Needs root (namespaces) and sshd. After each cut the device is started again: its slot must hold the old or the new bundle,
whole by `devices check --slot`, and what was cut must then finish.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import random
import tempfile
import threading
import time
from pathlib import Path

from agent.contract.errors import EdgepackError
from benchmarks import machine
from packager.device import inventory
from packager.device.device import Device
from packager.device.push import PushOptions
from tests.device.bench.loopback import Loopback
from tests.device.sshd import Client, make_key

MOMENTS = ("push", "activate", "rollback", "prune")


def small_bundles(folder):
    """Two bundles of the demo's model that differ in a file, and their digests."""
    from packager import build
    from packager.demo import demo_data
    from tests.device.road import TARGET, digest_of, with_file

    base = folder / "base.edgepack"
    build(str(demo_data.model_path()), TARGET, output=base, check=False)
    made = [with_file(base, folder / f"{name}.edgepack", os.urandom(4 << 20)) for name in ("one", "two")]
    return made, [digest_of(path) for path in made]


def act(moment, bundle, digest):
    """Does what is to be cut."""
    with Device("cut") as device:
        if moment == "push":
            device.push(bundle, PushOptions(slot="vision", patience=0))
        elif moment == "activate":
            device.session.call(
                "activate", {"slot": "vision", "digest": digest}
            )  # not waiting for the device to return
        elif moment == "rollback":
            device.session.call("rollback", {"slot": "vision"})
        else:
            device.prune(0)


def prepare(moment, bundles, digests):
    """The state before the cut; the digests that the slot may hold after it."""
    with Device("cut") as device:
        device.push(bundles[0], PushOptions(slot="vision"))
        if moment == "push":
            device.activate("vision", digests[0])
            device.prune(0)
        elif moment in {"activate", "prune"}:
            device.push(bundles[1])
            device.activate("vision", digests[0])
        elif moment == "rollback":
            device.push(bundles[1], PushOptions(slot="vision"))
            device.activate("vision", digests[1])


def one(device, moment, bundles, digests, seconds):
    """One cut after `seconds`. What went wrong, or ""; and whether the cut came before the end."""
    prepare(moment, bundles, digests)
    done = threading.Event()

    def work():
        with contextlib.suppress(EdgepackError):
            act(moment, bundles[1], digests[1])
            done.set()

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(seconds)
    in_time = not done.is_set()
    device.power_cut()
    thread.join(90)
    device.start()
    with Device("cut") as connected:
        told = connected.verify("vision")
        errors = [row["error"]["what"] for row in (*told["bundles"], *told["problems"]) if row["error"]]
        current = [row["bundle"] for row in told["bundles"] if "vision current" in row["slots"]]
        if errors or len(current) != 1 or current[0] not in digests:
            return f"{moment}: {errors} {current}", in_time
        connected.push(bundles[1], PushOptions(slot="vision"))
        connected.prune(0)
    return "", in_time


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuts", type=int, default=300)
    parser.add_argument("--seed", type=int, default=9)
    parser.add_argument("--minutes", type=float, default=600.0)
    chosen = parser.parse_args()
    chance, end = random.Random(chosen.seed), time.monotonic() + 60 * chosen.minutes  # noqa: S311 - chance, not a secret
    print(f"`{machine.command()}`, {machine.facts()}; {machine.load()}\n", flush=True)
    counts, in_time, faults = collections.Counter(), collections.Counter(), []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        key = make_key(folder / "id_ed25519")
        os.environ["HOME"] = str(folder / "home")
        client = Client(folder / "home", key)
        device = Loopback(key.with_name("id_ed25519.pub").read_text(), name="cut")
        client.trust(device)
        try:
            device.start()
            inventory.add("cut", inventory.DeviceEntry(address=device.address, python=python_for_device(folder)))
            bundles, digests = small_bundles(folder)
            prepare("push", bundles, digests)
            longest = {}
            while sum(counts.values()) < chosen.cuts and time.monotonic() < end:
                moment = MOMENTS[sum(counts.values()) % len(MOMENTS)]
                if moment not in longest:
                    prepare(moment, bundles, digests)
                    began = time.monotonic()
                    act(moment, bundles[1], digests[1])
                    longest[moment] = time.monotonic() - began
                fault, cut = one(device, moment, bundles, digests, chance.uniform(0, longest[moment]))
                counts[moment] += 1
                in_time[moment] += cut
                if fault:
                    faults.append(fault)
                    print(fault, flush=True)
        finally:
            device.remove()
    machine.header("cut during", "cuts", "before its end", "whole and runnable after it")
    for moment in MOMENTS:
        bad = sum(fault.startswith(moment) for fault in faults)
        machine.row(moment, counts[moment], in_time[moment], counts[moment] - bad)
    whole = "target met" if sum(counts.values()) >= chosen.cuts else "no fault, but cut short: no verdict"
    print(f"\n{machine.load()} at the end\n{'TARGET MISSED' if faults else whole}")


def python_for_device(folder):
    """An interpreter with the runtime that the device's user may run."""
    from tests.device.bench.loopback import USER
    from tests.device.road import PACKAGES, Interpreters

    del USER, folder
    return Interpreters("nobody")(*PACKAGES)


if __name__ == "__main__":
    main()
