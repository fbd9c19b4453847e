"""How large is the page for 100 runs, and how long does chromium take to open it?

python -m benchmarks.page [--runs N] [--turns N]

Opening is measured by the browser itself: the navigation's start to the end of its load event, a fresh process each turn.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import machine
from packager.results.page.write import write_page
from packager.results.store import Stored
from tests.packager.results import browser
from tests.packager.results.reports import EMULATED, report, scored

MOST_BYTES = 2_000_000
_ASK = """<script>addEventListener("load",()=>setTimeout(()=>{const n=performance.getEntriesByType("navigation")[0];
document.documentElement.setAttribute("data-opened",
[n.domContentLoadedEventEnd,n.loadEventEnd].join(" "))}))</script></body>"""


def made(count):
    """As many runs, of 3 rounds of 1,000 samples; every fifth counts instructions, every second is scored."""
    for index in range(count):
        changes = {"emulation": EMULATED} if index % 5 == 4 else {}
        if index % 2:
            changes["accuracy"] = scored(0.9 - index / 1000)
        one = report(f"job-{index}", 1_000_000 + 7_000 * index, n=1000, recipe=f"r{index % 4}", **changes)
        yield Stored(index + 1, 1.7e9 + index, "pi@kitchen", one)


def opened(folder, path):
    asked = folder / "asked.html"
    asked.write_text(path.read_text(encoding="utf-8").replace("</body>", _ASK), encoding="utf-8")
    dom = browser.chromium(folder, asked, "--dump-dom", "--virtual-time-budget=20000")
    return [float(value) for value in re.search('data-opened="([^"]+)"', dom).group(1).split()]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--turns", type=int, default=5)
    chosen = parser.parse_args()
    if browser.CHROMIUM is None:
        print("chromium is not installed: apt-get install chromium", file=sys.stderr)
        return 2
    print(f"`{machine.command()}`, {machine.facts()}; {machine.load()}\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = list(made(chosen.runs))
        start, busy = time.perf_counter(), time.process_time()
        size = write_page(runs, folder / "page.html")
        wrote = f"{time.perf_counter() - start:.1f} / {time.process_time() - busy:.1f}"
        times = [opened(folder, folder / "page.html") for _ in range(chosen.turns)]
    machine.header(
        "runs",
        "page, kB",
        "kB per run",
        "written in, s: wall / processor",
        "DOM ready, ms: best, median",
        "opened, ms: best, median",
    )
    ready, done = ([one[index] for one in times] for index in (0, 1))
    cells = [f"{min(one):.0f}, {statistics.median(one):.0f}" for one in (ready, done)]
    machine.row(str(chosen.runs), f"{size / 1e3:.0f}", f"{size / 1e3 / chosen.runs:.1f}", wrote, *cells)
    met = size < MOST_BYTES
    print(f"\n{machine.load()} at the end")
    print("target met" if met else f"TARGET MISSED: less than {MOST_BYTES / 1e6:.0f} MB")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
