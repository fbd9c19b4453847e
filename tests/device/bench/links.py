"""A bad link: two network namespaces joined by a TUN link in user space, with delay, jitter, loss, a rate and a switch.

For kernels without tc netem. Needs root and /dev/net/tun; tops out near 10 MB/s. The test's thread steps into one side
(`with link.inside():`), the device lives in the other.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import heapq
import itertools
import os
import random
import select
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

from tests.device.sshd import is_root

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x1, 0x1000
CLONE_NEWNET = 0x40000000
HERE, THERE = "10.77.0.1", "10.77.0.2"
TICK = 0.05  # seconds: the longest the link sleeps before it looks at its switches
_numbers = itertools.count()
_libc = ctypes.CDLL(None, use_errno=True)


@dataclasses.dataclass(frozen=True)
class Quality:
    """What a link does to each packet, each way. Delay and jitter in ms, rate in Mbit/s (0: no limit), loss 0..1.

    `queue_ms` is how much may wait for its turn at that rate; what comes on top is dropped, as a router does.
    """

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    loss: float = 0.0
    rate_mbit: float = 0.0
    queue_ms: float = 200.0


PROFILES = {
    "wifi-good": Quality(delay_ms=2, jitter_ms=2, loss=0.001, rate_mbit=50),
    "wifi-bad": Quality(delay_ms=15, jitter_ms=40, loss=0.02, rate_mbit=5, queue_ms=400),
    "lte": Quality(delay_ms=35, jitter_ms=15, loss=0.002, rate_mbit=12, queue_ms=600),
}


def why_not():
    """Why there can be no links here, or ""."""
    if not is_root():
        return "network namespaces need root"
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun"
    name = f"edgepack-try-{os.getpid()}"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    if tried.returncode:
        return f"network namespaces are not permitted: {tried.stderr.decode().strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return ""


class Link:
    """Both namespaces and what joins them. `near` and `far` name them; the far side's address is `THERE`."""

    def __init__(self, quality=None, *, seed=0):
        self.quality = quality or Quality()
        number = f"{os.getpid()}-{next(_numbers)}"
        self.near, self.far = f"edgepack-n{number}", f"edgepack-f{number}"
        self.carried = 0  # bytes handed over so far, both ways together
        self._up, self._up_again, self._cut_at = True, None, None
        self._random = random.Random(seed)  # noqa: S311 - chance, not a secret
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._fds = []
        try:
            for side, (name, own, peer) in enumerate(((self.near, HERE, THERE), (self.far, THERE, HERE))):
                _ip("netns", "add", name)
                self._fds.append(_tun(f"ep{next(_numbers)}{'nf'[side]}{os.getpid() % 10000}", name, own, peer))
        except BaseException:
            self._remove()
            raise
        self._thread = threading.Thread(target=self._carry, name=f"link {number}", daemon=True)
        self._thread.start()

    # The switch

    def cut(self):
        """From now on everything is lost, without a word to either side."""
        with self._lock:
            self._up, self._up_again = False, None

    def restore(self):
        with self._lock:
            self._up, self._up_again = True, None

    def cut_for(self, seconds):
        """Cut now, and whole again after `seconds`."""
        with self._lock:
            self._up, self._up_again = False, time.monotonic() + seconds

    def cut_after(self, count, seconds=None):
        """Cut once `count` bytes more have been carried: for good, or for `seconds`."""
        with self._lock:
            self._cut_at = (self.carried + count, seconds)

    @property
    def up(self):
        with self._lock:
            return self._up

    # From inside

    @contextlib.contextmanager
    def inside(self):
        """The calling thread's new sockets live on the near side; older ones and other threads stay where they are."""
        with Path("/proc/thread-self/ns/net").open() as home, Path(f"/run/netns/{self.near}").open() as near:
            _setns(near)
            try:
                yield
            finally:
                _setns(home)

    @property
    def within(self):
        """What to put before a command, so that it runs on the near side."""
        return ("ip", "netns", "exec", self.near)

    def connect(self, port, timeout=10):
        """A TCP socket from the near side to the far one, for paramiko's `connect(sock=...)`."""
        with self.inside():
            return socket.create_connection((THERE, port), timeout)

    def close(self):
        """Takes the link and both namespaces away."""
        self._stop.set()
        self._thread.join(5)
        self._remove()

    def _remove(self):
        for fd in self._fds:
            os.close(fd)
        self._fds = []
        for name in (self.near, self.far):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    # Carrying packets

    def _carry(self):
        waiting, numbers = [], itertools.count()
        sides = (_Direction(self.quality, self._random), _Direction(self.quality, self._random))
        while not self._stop.is_set():
            now = time.monotonic()
            self._switch(now)
            while waiting and waiting[0][0] <= now:
                _, _, side, packet = heapq.heappop(waiting)
                self._deliver(self._fds[1 - side], packet)
            patience = min(TICK, max(0.0, waiting[0][0] - now)) if waiting else TICK
            readable, _, _ = select.select(self._fds, [], [], patience)
            now = time.monotonic()
            for fd in readable:
                side = self._fds.index(fd)
                for packet in _packets(fd):
                    due = sides[side].due(now, len(packet)) if self.up else None
                    if due is not None:
                        heapq.heappush(waiting, (due, next(numbers), side, packet))

    def _switch(self, now):
        with self._lock:
            if self._up_again is not None and now >= self._up_again:
                self._up, self._up_again = True, None

    def _deliver(self, fd, packet):
        with self._lock:
            if self._cut_at is not None and self.carried + len(packet) > self._cut_at[0]:
                seconds = self._cut_at[1]
                self._up, self._cut_at = False, None
                self._up_again = None if seconds is None else time.monotonic() + seconds
            if not self._up:
                return
            self.carried += len(packet)
        with contextlib.suppress(BlockingIOError):  # the receiver's queue is full: lost, as on a wire
            os.write(fd, packet)


class _Direction:
    """When a packet arrives, or whether: one direction of the link."""

    def __init__(self, quality, chance):
        self.quality, self.chance = quality, chance
        self.rate = quality.rate_mbit * 1e6 / 8
        self.busy_until = self.last = 0.0

    def due(self, now, size):
        if self.chance.random() < self.quality.loss:
            return None
        sent = now
        if self.rate:
            begin = max(now, self.busy_until)
            if begin - now > self.quality.queue_ms / 1e3:
                return None
            sent = self.busy_until = begin + size / self.rate
        due = sent + (self.quality.delay_ms + self.chance.random() * self.quality.jitter_ms) / 1e3
        self.last = max(due, self.last)  # jitter does not reorder
        return self.last


def _packets(fd):
    for _ in range(64):
        try:
            yield os.read(fd, 65535)
        except BlockingIOError:
            return


def _tun(device, namespace, own, peer):
    import fcntl

    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TUN | IFF_NO_PI))
        _ip("link", "set", device, "netns", namespace)
        _ip("-n", namespace, "addr", "add", own, "peer", peer, "dev", device)
        _ip("-n", namespace, "link", "set", device, "up")
        _ip("-n", namespace, "link", "set", "lo", "up")
    except BaseException:
        os.close(fd)
        raise
    return fd


def _ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _setns(file):
    if _libc.setns(file.fileno(), CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
