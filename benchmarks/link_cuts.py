"""Links that are cut at random byte counts while a bundle is pushed and activated, and pushes over bad links.

First a proxy before a device on loopback resets the connection after so many bytes, --cuts times, and takes the next one at
once. Then TUN links (root, /dev/net/tun) with the delay, loss and rate of `wifi-bad` and `lte`: a push to completion, then
some whose link falls silent at a random byte, for 3 s (TCP survives) or 40 s (it does not).
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import statistics
import threading
import time
from collections import Counter

from agent.contract import archive
from agent.contract.errors import TransientDeviceError
from benchmarks import machine
from benchmarks.lab import Lab, two_bundles
from packager.device.device import Device
from packager.device.push import PushOptions
from tests.device.bench import links
from tests.device.road import digest_of, half_written, with_file

PADDING = 4 << 20
SILENCES = (3.0, 3.0, 40.0)


class Proxy:
    """Carries connections to a port on loopback. `cut_after` bytes, both ways together, the connection is reset."""

    def __init__(self, port):
        self._target, self._lock = ("127.0.0.1", port), threading.Lock()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.carried, self._cut_at = 0, None
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_after(self, count):
        with self._lock:
            self._cut_at = None if count is None else self.carried + count

    @property
    def was_cut(self):
        return self._cut_at is None

    def close(self):
        self._server.close()

    def _accept(self):
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            for pair in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source, target):
        try:
            while data := source.recv(16384):
                room = self._room(len(data))
                target.sendall(data[:room])
                if room < len(data):
                    for each in (source, target):  # at once, and not in good order
                        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                        each.shutdown(socket.SHUT_RDWR)
                        each.close()
                    return
            target.shutdown(socket.SHUT_WR)
        except OSError:
            for each in (source, target):
                each.close()

    def _room(self, size):
        with self._lock:
            if self._cut_at is not None and self.carried + size > self._cut_at:
                size, self._cut_at = max(0, self._cut_at - self.carried), None
            self.carried += size
            return size


class Pushes:
    """Bundles that are new each time, to one device's slot; what came of each."""

    def __init__(self, lab, name, device):
        self.name, self.root, self._folder = name, device.home / ".edgepack", lab.folder
        self._base = two_bundles(lab.folder, 1)[0][0]
        self.counts, self.faults, self.seconds, self.twice = Counter(), [], [], []
        self.size = 0

    def one(self, what):
        """One push, again and again until it is through; its slot must then hold it, whole."""
        bundle = with_file(self._base, self._folder / "new.edgepack", os.urandom(PADDING))
        start, tries = time.monotonic(), 0
        while True:
            tries += 1
            try:
                with Device(self.name) as device:
                    told = device.push(bundle, PushOptions(slot="vision"))
                break
            except TransientDeviceError as error:
                print(f"{what}: {error.code}", flush=True)
                if tries > 20:
                    self.faults.append(f"{what}: never done: {error}")
                    return None
        self.seconds.append(time.monotonic() - start)
        self.counts["by itself" if tries == 1 else "by the next push"] += 1
        self.counts["resumed"] += told["bytes_resumed"] > 0
        self.size = told["bytes_already_there"] + PADDING
        self.twice.append(max(0, told["bytes_sent"] - PADDING) / PADDING)
        self._judge(what, bundle)
        return told

    def _judge(self, what, bundle):
        digest = digest_of(bundle)
        place = self.root / "slots" / "vision" / "current"
        if place.resolve().name != digest[len("sha256:") :]:
            self.faults.append(f"{what}: the slot does not hold it")
        archive.verify_folder(place.resolve(), digest)

    def tidy(self):
        """Without cuts: nothing half written may be left."""
        with Device(self.name) as device:
            device.prune(0)
        self.faults += [f"left behind: {path}" for path in half_written(self.root)]


def resets(lab, chance, cuts):
    """`cuts` pushes through the proxy, each reset once."""
    device = lab.device("reset", runtime=True)
    proxy = Proxy(device.port)
    port, device.port = device.port, proxy.port
    lab.register("reset", device)
    pushes = Pushes(lab, "reset", device)
    proxy.cut_after(None)
    pushes.one("without a cut")
    before = proxy.carried
    pushes.one("without a cut")
    whole = proxy.carried - before
    pushes.counts.clear()
    in_time = 0
    for number in range(cuts):
        proxy.cut_after(chance.randrange(whole))
        pushes.one(f"cut {number}")
        in_time += proxy.was_cut
        proxy.cut_after(None)
        if number % 20 == 19:
            pushes.tidy()
    pushes.tidy()
    device.port = port
    proxy.close()
    machine.header(
        "cuts", "reset before the end", "done by itself", "by the next push", "resumed", "faults", "s: median"
    )
    machine.row(
        cuts, in_time, pushes.counts["by itself"], pushes.counts["by the next push"], pushes.counts["resumed"],
        len(pushes.faults), f"{statistics.median(pushes.seconds):.2f}",
    )  # fmt: skip
    again = f"{statistics.mean(pushes.twice[2:]):.3f} on average, {max(pushes.twice):.3f} at most"
    print(f"\nsent beyond the file's own bytes, as a share of it: {again} (headers and what was sent twice)\n")
    return pushes.faults


def bad_link(lab, chance, profile):
    """A push to completion, and pushes whose link falls silent."""
    link = links.Link(links.PROFILES[profile])
    faults = []
    try:
        device = lab.device(profile, runtime=True, network=link.far, host=links.THERE)
        with link.inside():
            pushes = Pushes(lab, profile, device)
            pushes.one("the first")  # brings the agent, too
            before, start = link.carried, time.monotonic()
            pushes.one("whole")
            machine.row(profile, "none", f"{time.monotonic() - start:.1f}", f"{(link.carried - before) / 1e6:.2f}", "-")
            for seconds in SILENCES:
                count = chance.randrange(PADDING)
                link.cut_after(count, seconds)
                before, start = link.carried, time.monotonic()
                told = pushes.one(f"{profile}, silent for {seconds:g} s after {count} bytes")
                took, carried = time.monotonic() - start, (link.carried - before) / 1e6
                resumed = told and told["bytes_resumed"]
                machine.row(profile, f"{seconds:g} s after {count} B", f"{took:.1f}", f"{carried:.2f}", resumed)
            pushes.tidy()
            faults = pushes.faults
        device.remove()
    finally:
        link.close()
    return faults


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuts", type=int, default=200, help="0: the links only")
    parser.add_argument("--seed", type=int, default=9)
    chosen = parser.parse_args()
    chance = random.Random(chosen.seed)  # noqa: S311 - chance, not a secret
    print(f"`{machine.command()}`, {machine.facts()}; {machine.load()}\n", flush=True)
    with Lab() as lab:
        faults = [] if chosen.cuts == 0 else resets(lab, chance, chosen.cuts)
        machine.header("link", "silent", "s", "MB carried, both ways", "bytes resumed")
        for profile in ("wifi-bad", "lte"):
            faults += bad_link(lab, chance, profile)
    for fault in faults:
        print(fault)
    print(f"\n{machine.load()} at the end\n{'TARGET MISSED' if faults else 'target met'}")


if __name__ == "__main__":
    main()
