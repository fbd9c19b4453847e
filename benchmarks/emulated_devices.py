"""Emulated boards: fp32 against int8 by instruction count, how well counts repeat, and how fast machines start.

    python -m benchmarks.emulated_devices [--boots 5] [--part table|repeat|start]...

Runs the command line as a user does, with an inventory and machines of its own; the cache of images is the user's. The table
counts instructions of emulated machines: how much work is done and by which kernels, never a board's latency.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import emulated_nets, machine
from packager import demo_data

BOARDS = {"cortex-a53": "raspberry-pi-3", "cortex-a72": "raspberry-pi-4", "cortex-a76": "raspberry-pi-5"}
PARTS = ("table", "repeat", "start")
BURNERS = 4  # on the host, while counts are taken: twice the cores that it has here
BURN = "while True: pass"


class Bench:
    """The command line with a home of its own, and bundles built once."""

    def __init__(self, home):
        self.home = home
        self.environment = {**os.environ, "XDG_CONFIG_HOME": str(home / "config"), "XDG_DATA_HOME": str(home / "data")}
        self.models = {
            "demo net": (demo_data.model_path(), demo_data.calibration_path()),
            "inverted residuals": self._made(emulated_nets.inverted_residuals, [32, 3, 64, 64]),
            "transformer encoder": self._made(emulated_nets.encoder, [32, 32, 64]),
        }
        for layers in (100, 101):
            path = machine.dense_net(home / f"dense{layers}.onnx", width=192, layers=layers)
            self.models[f"{layers} dense layers"] = (path, machine.samples(home / "dense.npz", [32, 192]))

    def _made(self, make, shape):
        path = make(self.home / f"{make.__name__}.onnx")
        return path, machine.samples(path.with_suffix(".npz"), shape)

    def edgepack(self, *words):
        done = subprocess.run(
            [sys.executable, "-m", "packager", *map(str, words)],
            env={**self.environment, "PYTHONPATH": str(Path.cwd())},
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"edgepack {' '.join(map(str, words))} ended with {done.returncode}:\n{done.stderr}")
        return done.stdout

    def emulate(self, board):
        """Starts the board (again); its start-up time in seconds."""
        return json.loads(self.edgepack("devices", "emulate", board, "--memory", "512 MiB", "--json"))["boot_seconds"]

    def bundle(self, model, board, recipe):
        path = self.home / f"{model.replace(' ', '-')}-{board}-{recipe}.edgepack"
        if not path.exists():
            source, data = self.models[model]
            more = ["--calibration", data] if recipe == "int8" else []
            self.edgepack("build", source, "--target", board, "--recipe", recipe, "-o", path, *more)
        return path

    def count(self, model, board, recipe, runs=5):
        """The median of instructions in an inference, the golden check passed first."""
        words = ["bench", self.bundle(model, board, recipe), board, "--runs", runs, "--rounds", 1, "--threads", 1]
        (report,) = json.loads(self.edgepack(*words, "--json"))["reports"]
        assert report["parity"]["verdict"] == "pass"
        return report["latency"]["p50_instructions"]


def compare(bench):
    """fp32 against int8, three models on three cores."""
    machine.header("model", "core", "fp32", "int8", "int8 / fp32")
    for core, board in BOARDS.items():
        bench.emulate(board)
        for model in list(bench.models)[:3]:
            fp32, int8 = (bench.count(model, board, recipe) for recipe in ("fp32", "int8"))
            machine.row(model, core, f"{fp32:,.0f}", f"{int8:,.0f}", f"{int8 / fp32:.2f}")
        bench.edgepack("devices", "stop", board)
    print()


def repeat(bench, boots):
    """The same bundles over several boots of a machine on a busy host; and two nets whose work differs by 1 %."""
    board = BOARDS["cortex-a72"]
    burners = [subprocess.Popen([sys.executable, "-c", BURN]) for _ in range(BURNERS)]
    try:
        found = {recipe: [] for recipe in ("fp32", "int8")}
        for _ in range(boots):
            bench.emulate(board)
            for recipe, counts in found.items():
                counts.append(bench.count("demo net", board, recipe))
            bench.edgepack("devices", "stop", board)
        bench.emulate(board)
        dense = [bench.count(f"{layers} dense layers", board, "fp32") for layers in (100, 101)]
        bench.edgepack("devices", "stop", board)
    finally:
        for each in burners:
            each.kill()
            each.wait()
    print(f"{boots} boots of a {board} (cortex-a72), {BURNERS} busy processes on the host; {machine.load()}\n")
    machine.header("demo net", "instructions: least", "greatest", "spread, %")
    for recipe, counts in found.items():
        spread = 100 * (max(counts) - min(counts)) / statistics.median(counts)
        machine.row(recipe, f"{min(counts):,.0f}", f"{max(counts):,.0f}", f"{spread:.3f}")
    print(f"\n100 dense layers {dense[0]:,.0f}, 101 layers {dense[1]:,.0f}: ratio {dense[1] / dense[0]:.4f}\n")


def start(bench):
    """From nothing but cached packages to an image, then boots: the first (a disk is copied) and a later one."""
    from packager.emulate.image import ensure_image, images_folder

    ensure_image()
    with tempfile.TemporaryDirectory(dir=images_folder().parent) as scratch:
        (Path(scratch) / "downloads").symlink_to(images_folder() / "downloads")
        began = time.monotonic()
        ensure_image(cache=Path(scratch))
        built = time.monotonic() - began
    print(f"image from cached packages: {built:.1f} s; {machine.load()}\n")
    machine.header("core", "new machine, whole command, s", "boot alone, s", "started again, whole command, s")
    for core, board in BOARDS.items():
        seconds, boots = [], []
        for _ in range(2):
            began = time.monotonic()
            boots.append(bench.emulate(board))
            seconds.append(time.monotonic() - began)
            bench.edgepack("devices", "stop", board)
        machine.row(core, f"{seconds[0]:.1f}", f"{boots[0]:.1f}, {boots[1]:.1f}", f"{seconds[1]:.1f}")
        bench.edgepack("devices", "remove", board)
    print()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--boots", type=int, default=5)
    parser.add_argument("--part", action="append", choices=PARTS, help="only this (repeatable)")
    chosen = parser.parse_args()
    parts = chosen.part or PARTS
    print(f"`{machine.command()}`, {machine.facts()}; {machine.load()}\n")
    with tempfile.TemporaryDirectory(prefix="edgepack-emulated-") as scratch:
        bench = Bench(Path(scratch))
        try:
            if "start" in parts:
                start(bench)
            if "table" in parts:
                compare(bench)
            if "repeat" in parts:
                repeat(bench, chosen.boots)
        finally:
            for device in json.loads(bench.edgepack("devices", "list", "--json")):
                bench.edgepack("devices", "remove", device["name"])
    print(f"{machine.load()} at the end")


if __name__ == "__main__":
    main()
