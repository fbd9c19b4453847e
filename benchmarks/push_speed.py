"""A cold push of a large bundle over loopback SSH against `scp` with a remote `sha256sum` and `sync`, in turn.

Then a push with nothing to do, and one whose model changed in one layer of twenty. Needs sshd, scp and ssh.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import time

from benchmarks import machine
from benchmarks.lab import Lab
from packager.device.device import Device
from tests.agent.bundles import manifest, write_bundle

LAYERS = 20


def made(path, layers):
    contents = {"model/model.onnx": b"".join(layers)}
    write_bundle(path, manifest(contents), contents)
    return path


def pushed(bundle):
    start = time.monotonic()
    with Device("fast") as device:
        told = device.push(bundle)
    return time.monotonic() - start, told


def copied(device, client, bundle, way):
    options = ["-q", "-i", str(client.key), "-o", f"UserKnownHostsFile={client.known_hosts}", "-o", "BatchMode=yes"]
    ssh = ["ssh", "-p", str(device.port), *options, f"{device.user}@{device.host}"]
    start = time.monotonic()
    if way == "scp":
        scp = ["scp", "-P", str(device.port), *options, str(bundle), f"{device.user}@{device.host}:copy"]
        subprocess.run(scp, check=True)
    elif way == "rsync":
        shell = " ".join(ssh[:-1])
        subprocess.run(["rsync", "-W", "-e", shell, str(bundle), f"{ssh[-1]}:copy"], check=True)
    else:
        with bundle.open("rb") as file:
            subprocess.run([*ssh, "cat > copy"], stdin=file, check=True)
    subprocess.run([*ssh, "sha256sum copy && sync copy && rm copy"], check=True, capture_output=True)
    return time.monotonic() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=200)
    parser.add_argument("--turns", type=int, default=5)
    chosen = parser.parse_args()
    print(f"`{machine.command()}`, {machine.facts()}; {machine.load()}\n", flush=True)
    with Lab() as lab:
        measure(lab.device("fast"), lab.client, lab.folder, chosen)
    print(f"\n{machine.load()} at the end")


def measure(device, client, folder, chosen):
    times = {way: [] for way in ("edgepack", "scp", "rsync", "ssh cat")}
    layers = [os.urandom(chosen.mb * 1_000_000 // LAYERS) for _ in range(LAYERS)]
    for _ in range(chosen.turns):
        layers = [os.urandom(len(layer)) for layer in layers]
        bundle = made(folder / "new.edgepack", layers)
        times["edgepack"].append(pushed(bundle)[0])
        for way in ("scp", "rsync", "ssh cat"):
            times[way].append(copied(device, client, bundle, way))
        with Device("fast") as connected:
            nothing = [pushed(bundle) for _ in range(3)]
            layers[LAYERS // 2] = os.urandom(len(layers[0]))
            changed = pushed(made(folder / "changed.edgepack", layers))[1]
            connected.prune(0)
    machine.header("way", "s: best", "s: median", "edgepack is so many times as fast: median (range)")
    for way, found in times.items():
        ratios = [other / own for own, other in zip(times["edgepack"], found, strict=True)]
        machine.row(way, f"{min(found):.2f}", f"{statistics.median(found):.2f}", machine.spread(ratios))
    idle = [seconds for seconds, _ in nothing]
    print(f"\nnothing to do: {min(idle):.2f} s best, {max(idle):.2f} s worst, {nothing[0][1]['bytes_sent']} bytes sent")
    share = changed["bytes_sent"] / sum(map(len, layers))
    print(f"one changed layer of {LAYERS}: {share:.4f} of the file sent")


if __name__ == "__main__":
    main()
