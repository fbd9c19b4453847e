"""Power cuts: devices whose every process is killed at random moments of push, activate, rollback and prune.

Needs root (namespaces) and sshd. After each cut the device is started again: its slot must hold the old or the new bundle,
whole and computing what it must, every other bundle must be whole, and a push must then finish and leave nothing behind.
Several devices run side by side (--at-once); what a cut starts from is a copy of one prepared disk.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import random
import shutil
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from agent.contract import archive
from agent.contract.errors import EdgepackError
from benchmarks import machine
from benchmarks.lab import Lab, two_bundles
from packager.device.device import Device
from packager.device.push import PushOptions
from tests.device.road import digest_of, half_written, with_file

MOMENTS = ("push", "activate", "rollback", "prune")
PADDING = 8 << 20
OTHERS = 10  # bundles without a slot, for prune to delete
TIMED_EVERY = 4  # cuts of a kind between two measurements of how long the whole takes, which other work changes
LATEST = 1.1  # the last moment of a cut, in such lengths: some must come after the change


class Cuts:
    """One device, and the disks that its cuts start from."""

    def __init__(self, lab, name, bundles, digests):
        self.name, self.device = name, lab.device(name, runtime=True)
        self.root = self.device.home / ".edgepack"
        self.bundles, self.digests = bundles, digests
        self.before, self.seconds, self.counts = {}, {}, collections.Counter()

    def like(self, other):
        """Starts from what another has prepared: nothing on a disk depends on where it is."""
        self.before, self.seconds = other.before, dict(other.seconds)

    def prepare(self, others):
        """For each moment the disk before it, what the slot then holds, and how long the whole takes without a cut."""
        bundles, digests = self.bundles, self.digests
        with Device(self.name) as device:
            device.push(bundles[0], PushOptions(slot="vision"))
            self._keep("push", digests[:1])
            device.push(bundles[1])
            self._keep("activate", digests[:1])
            device.push(bundles[1], PushOptions(slot="vision"))
            self._keep("rollback", digests[1:])
            for other in others:
                device.push(other)
            self._keep("prune", digests[1:])
        for moment in MOMENTS:
            self.time(moment)

    def time(self, moment):
        """Measures how long the whole takes, with what else the machine does now."""
        self.restore(moment)
        with Device(self.name) as device:
            device.hello()
            start = time.monotonic()
            self.act(device, moment)
            self.seconds[moment] = time.monotonic() - start

    def _keep(self, moment, holds):
        disk = self.device.folder / f"disk-{moment}"
        subprocess.run(["cp", "-a", str(self.device.home), str(disk)], check=True)
        self.before[moment] = disk, holds

    def restore(self, moment):
        """The disk as it was before that moment; the home folder itself stays, for it is open."""
        for path in self.device.home.iterdir():
            shutil.rmtree(path)
        disk = self.before[moment][0]
        subprocess.run(["cp", "-a", f"{disk}/.", str(self.device.home)], check=True)

    def act(self, device, moment):
        """Does what is to be cut, and does not wait for the device to come back."""
        if moment == "push":
            device.push(self.bundles[1], PushOptions(slot="vision", patience=0))
        elif moment == "activate":
            device.session.call("activate", {"slot": "vision", "digest": self.digests[1]})
        elif moment == "rollback":
            device.session.call("rollback", {"slot": "vision"})
        else:
            device.prune(0)

    def one(self, moment, share):
        """One cut at `share` of the way. What went wrong, or ""; whether it was cut before the end; "old" or "new"."""
        self.counts[moment] += 1
        if self.counts[moment] % TIMED_EVERY == 0:
            self.time(moment)
        self.restore(moment)
        begun, done = threading.Event(), threading.Event()

        def work():
            with contextlib.suppress(EdgepackError), Device(self.name) as device:
                device.hello()
                begun.set()
                self.act(device, moment)
                done.set()

        thread = threading.Thread(target=work)
        thread.start()
        assert begun.wait(90), "the device did not answer before the cut"
        time.sleep(share * self.seconds[moment])
        self.device.power_cut()
        in_time = not done.is_set()
        thread.join(90)
        self.device.start()
        current, fault = self._judge(moment)
        return fault, in_time, "old" if current in self.before[moment][1] else "new"

    def _judge(self, moment):
        faults = []
        with Device(self.name) as device:
            told = device.verify("vision")
            faults += [row["error"]["what"] for row in (*told["bundles"], *told["problems"]) if row["error"]]
            current = [row["bundle"] for row in told["bundles"] if "vision current" in row["slots"]]
            if len(current) != 1 or current[0] not in self.digests:
                return "", f"{moment}: the slot holds {current}; {faults}"
            allowed = self.before[moment][1] if moment == "prune" else self.digests
            if current[0] not in allowed:
                faults.append("prune changed the slot")
            faults += self._on_disk(current[0])
            wanted = next(digest for digest in self.digests if digest != current[0])
            path = self.bundles[self.digests.index(wanted)]
            after = device.push(path, PushOptions(slot="vision"))["activated"]
            if after is None or after["slot"]["current"] != wanted:
                faults.append("the next push did not activate")
            device.prune(0)
        faults += half_written(self.root)
        return current[0], f"{moment}: {faults}" if faults else ""

    def _on_disk(self, current):
        """What an application and a thief of half-written files would see."""
        manifest = self.root / "slots" / "vision" / "current" / "manifest.json"
        faults = [] if manifest.is_file() else ["no bundle at the stable path"]
        for folder in (self.root / "bundles").glob("[!.]*"):
            try:
                archive.verify_folder(folder, "sha256:" + folder.name)
            except EdgepackError as error:
                faults.append(f"{folder.name[:12]}: {error}")
        if not os.path.realpath(manifest.parent).endswith(current[len("sha256:") :]):
            faults.append("the stable path is not the slot's bundle")
        return faults


class Tally:
    """What came of the cuts, from all devices."""

    def __init__(self, cuts, seconds, seed):
        self._left, self._end = cuts, time.monotonic() + seconds
        self._chance = random.Random(seed)  # noqa: S311 - chance, not a secret
        self._lock = threading.Lock()
        self.counts, self.in_time, self.ended, self.faults = (collections.Counter() for _ in range(4))

    def next(self):
        """The next cut's moment and its share of the way; None when there is none."""
        with self._lock:
            if not self._left or time.monotonic() > self._end:
                return None
            self._left -= 1
            return MOMENTS[self._left % len(MOMENTS)], self._chance.uniform(0, LATEST)

    def add(self, moment, fault, in_time, ended):
        with self._lock:
            self.counts[moment] += 1
            self.in_time[moment] += in_time
            self.ended[moment, ended] += 1
            if fault:
                self.faults[moment] += 1
                print(fault, flush=True)

    def run(self, cuts):
        """Cuts on this device until there are no more."""
        while (asked := self.next()) is not None:
            try:
                told = cuts.one(*asked)
            except EdgepackError as error:
                told = (f"{asked[0]}: {error}", True, "fault")
                cuts.device.restart()
            self.add(asked[0], *told)

    def show(self):
        machine.header("cut during", "cuts", "before its end", "then old", "then new", "faults")
        for one in MOMENTS:
            ended = [self.ended[one, "old"], self.ended[one, "new"]]
            machine.row(one, self.counts[one], self.in_time[one], *ended, self.faults[one])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuts", type=int, default=300)
    parser.add_argument("--seed", type=int, default=9)
    parser.add_argument("--minutes", type=float, default=600.0)
    parser.add_argument("--at-once", type=int, default=2)
    chosen = parser.parse_args()
    print(f"`{machine.command()}`, {machine.facts()}; {machine.load()}\n", flush=True)
    tally = Tally(chosen.cuts, 60 * chosen.minutes, chosen.seed)
    with Lab() as lab, ThreadPoolExecutor(chosen.at_once) as pool:
        bundles, digests = two_bundles(lab.folder, PADDING)
        others = [with_file(bundles[0], lab.folder / f"{n}.edgepack", os.urandom(1 << 20)) for n in range(OTHERS)]
        assert len({*digests, *map(digest_of, others)}) == OTHERS + len(digests)
        devices = [Cuts(lab, f"cut{number}", bundles, digests) for number in range(chosen.at_once)]
        devices[0].prepare(others)
        for device in devices[1:]:
            device.like(devices[0])
        start = time.monotonic()
        for done in [pool.submit(tally.run, device) for device in devices]:
            done.result()
        took = time.monotonic() - start
    tally.show()
    cuts, faults = sum(tally.counts.values()), sum(tally.faults.values())
    whole = "target met" if cuts >= chosen.cuts else "no fault, but cut short: no verdict"
    print(f"\n{cuts} cuts in {took:.0f} s; {machine.load()} at the end\n{'TARGET MISSED' if faults else whole}")


if __name__ == "__main__":
    main()
