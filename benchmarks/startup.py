"""How long does `edgepack --help` take beside a bare `import click`? And how large is the agent?

python -m benchmarks.startup [--turns N]
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import machine
from packager.device.agent_zip import agent_zip

RATIO, AGENT_BYTES = 1.6, 100_000
HEAVY = ("numpy", "onnx", "onnxruntime", "torch", "paramiko", "rich", "PIL")
LOADED = f"""
import sys
from packager.cli.main import run
run(["--help"])
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""


def timed(argv):
    start = time.perf_counter()
    subprocess.run(argv, check=True, capture_output=True)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=30)
    chosen = parser.parse_args()
    script = shutil.which("edgepack", path=str(Path(sys.executable).parent))
    if script is None:
        print("edgepack is not installed beside this interpreter: pip install -e .", file=sys.stderr)
        return 2
    print(f"`{machine.command()}`, {machine.facts()}; {machine.load()}, {chosen.turns} turns\n")
    commands = {
        "nothing": [sys.executable, "-c", "pass"],
        "click": [sys.executable, "-c", "import click"],
        "help": [script, "--help"],
        "version": [script, "--version"],
    }
    times = {name: [] for name in commands}
    for _ in range(chosen.turns + 1):
        for name, argv in commands.items():
            times[name].append(timed(argv))
    machine.header(
        "command", "ms: best", "ms: median", "ratio of the best to `import click`", "per turn: median (range)"
    )
    for name, argv in commands.items():
        taken, click = times[name][1:], times["click"][1:]
        ratios = [one / two for one, two in zip(taken, click, strict=True)]
        shown = " ".join([Path(argv[0]).name, *argv[1:]])
        best = min(taken) / min(click)
        cells = (f"{min(taken) * 1e3:.0f}", f"{statistics.median(taken) * 1e3:.0f}", f"{best:.2f}")
        machine.row(f"`{shown}`", *cells, machine.spread(ratios))
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    argv = [sys.executable, "-c", LOADED]
    heavy = subprocess.run(argv, check=True, capture_output=True, text=True, env=environment).stderr.strip()
    ratio, size = min(times["help"][1:]) / min(times["click"][1:]), len(agent_zip())
    print(f"\nheavy modules loaded by --help: {heavy}; agent: {size / 1e3:.1f} kB; {machine.load()} at the end")
    met = ratio <= RATIO and size <= AGENT_BYTES and heavy == "[]"
    print("target met" if met else f"TARGET MISSED: at most {RATIO}x, {AGENT_BYTES / 1e3:.0f} kB, no heavy module")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
