"""PyTorch Lite and ExecuTorch on architectures of `transformers` built from small configs, and on recurrent and convolutional
networks: builds that succeed, parity with the original, size, and latency against fp32 in the same runtime.

    python benchmarks/pytorch_mobile.py [--runtime pytorch_lite] [--only bert,vit,linear] [--zoo CASES] [--seconds 1]
        [--turns 1] [--recipe int8] [--clock cpu]

With --zoo, the cases there that have a model.py (benchmarks/zoo/make.py makes such folders) are built too, calibrated on
their own cal.npz. Elsewhere weights are random, so the cosine is parity, not accuracy. The latencies of a model's recipes
are sampled in turn in one process, one thread: ratios hold where the machine is shared, milliseconds may not. Needs the
`torch` extra and `transformers`; `executorch` for its rows.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

TARGET = "linux-x86-64"  # the machine that measures: its INT8 engine is x86, an ARM board's is qnnpack
RECIPES = ("fp32", "int8-dynamic", "int8")
# The first twelve of benchmarks/architectures.py: what of `transformers` phones are asked to run.
FIRST = 12
# Layers of the sizes of a small language model, for dynamic INT8: (kind, inputs, units).
LAYERS = {"linear": ("Linear", 512, 512), "lstm": ("LSTM", 256, 256), "gru": ("GRU", 256, 256)}
CLOCKS: dict[str, Callable[[], int]] = {"wall": time.perf_counter_ns, "cpu": time.thread_time_ns}
ZOO: dict[str, Path] = {}


def __getattr__(name: str) -> Any:
    if name in LAYERS:
        return lambda: layer(name)
    raise AttributeError(name)


def layer(name: str) -> Any:
    """Two layers of a kind over a sequence of 32; the output tensor alone."""
    import torch

    kind, inputs, units = LAYERS[name]
    parts = [getattr(torch.nn, kind)(inputs, units), getattr(torch.nn, kind)(units, units)]
    if name != "linear":
        parts = [getattr(torch.nn, kind)(inputs, units, num_layers=2, batch_first=True)]

    class Layers(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = torch.nn.ModuleList(parts)

        def forward(self, x: Any) -> Any:
            for part in self.parts:
                x = part(x)
                x = x[0] if isinstance(x, tuple) else x
            return x

    return Layers().eval(), (torch.randn(1, 32, inputs),)


def source_of(name: str) -> tuple[str, str]:
    """The factory's entry and where its calibration data come from."""
    if name in ZOO:
        return f"{ZOO[name] / 'model.py'}:build", str(ZOO[name] / "cal.npz")
    if name in LAYERS:
        return f"{__file__}:{name}", "random"
    code = Path(__file__).with_name("architectures.py")
    return f"{code}:{name}", f"{code}:{name}_samples"


def known() -> list[str]:
    """The architectures."""
    import sys

    sys.path.insert(0, str(Path(__file__).parent))
    import architectures

    return list(architectures.ARCHITECTURES)[:FIRST]


def one(name: str, runtime: str, folder: Path, asked: argparse.Namespace) -> None:
    from agent.contract import archive
    from agent.contract.errors import EdgepackError
    from packager import pipeline

    runners: dict[str, tuple[Any, Any, int, str, float]] = {}
    for recipe in asked.recipe or RECIPES:
        started = time.perf_counter()
        output = folder / f"{name}-{runtime}-{recipe}.edgepack"
        entry, data = source_of(name)
        calibration = data if recipe == "int8" else None
        try:
            built = pipeline.build(
                entry,
                TARGET,
                runtime=runtime,
                recipe=recipe,
                calibration=calibration,
                output=output,
                allow_drop=True,
            )
        except EdgepackError as error:
            print(
                f"| {runtime} | {name} | {recipe} | no: {error.what.splitlines()[0][:90]} ({error.code}) | | | |",
                flush=True,
            )
            continue
        took = time.perf_counter() - started
        place = folder / output.stem
        with archive.BundleReader(output) as reader:
            reader.extract(place)
        # allow_drop lets the golden check take what the host saw: here the cosine of the original is the judge.
        far = any(one.code == "host-parity" for one in built.manifest.findings)
        runners[recipe] = (*load(place), built.manifest.files[built.manifest.model].size, "far" if far else "", took)
    calls = {recipe: row[0] for recipe, row in runners.items()}
    turns = [measure(calls, asked.seconds, CLOCKS[asked.clock]) for _ in range(asked.turns)]
    for recipe, (_, verdict, size, far_off, took) in runners.items():
        ratios = sorted(turn["fp32"] / turn[recipe] for turn in turns if "fp32" in turn)
        told = f"{statistics.median(ratios):.2f}x" if ratios else "-"
        told += f" ({ratios[0]:.2f} to {ratios[-1]:.2f})" if len(ratios) > 1 else ""
        worst = min((output.cosine for output in verdict.outputs if output.cosine is not None), default=float("nan"))
        least = min(turn[recipe] for turn in turns)
        row = f"{'fail' if far_off else verdict.verdict} {worst:.4f} | {size} | {least:.3f} | {told} | {took:.0f} s"
        print(f"| {runtime} | {name} | {recipe} | {row} |", flush=True)


def load(place: Path) -> tuple[Any, Any]:
    """A call of the model on its first golden input, and the golden check's verdict."""
    from agent import child
    from agent.contract import archive, parity

    manifest = archive.read_manifest_file(place)
    runner = child.load_runner(manifest, place, {"threads": 1})
    feeds = child.golden_feeds(manifest, place)
    rows = [dict(zip(runner.output_names(), runner.run(feed), strict=True)) for feed in feeds]
    golden = manifest.golden
    wanted = {entry.name: child.load_array(place, entry.file) for entry in golden.outputs}
    return (lambda: runner.run(feeds[0])), parity.compare(wanted, rows, golden.tolerance)


def measure(calls: dict[str, Any], seconds: float, now: Callable[[], int]) -> dict[str, float]:
    """The least of each in ms, sampled in turn: what the machine can do when nothing else runs on it. A call longer than the
    scheduler's slice (3 ms) is hardly ever left alone on a busy machine: then let `now` be the thread's time on the processor.
    """
    samples: dict[str, list[int]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds * len(calls)
    while calls and (time.perf_counter() < end or len(next(iter(samples.values()))) < 20):
        for name, call in calls.items():
            start = now()
            call()
            samples[name].append(now() - start)
    return {name: min(values) / 1e6 for name, values in samples.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtime", action="append")
    parser.add_argument("--only", default="")
    parser.add_argument("--zoo", type=Path)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument(
        "--turns", type=int, default=1, help="measurements one after the other: median and range of ratios"
    )
    parser.add_argument("--recipe", action="append", choices=RECIPES)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    if asked.zoo is not None:
        ZOO.update({path.parent.name: path.parent for path in sorted(asked.zoo.glob("*/model.py"))})
    chosen = asked.only.split(",") if asked.only else [*ZOO, *known(), *LAYERS]
    print(
        "| runtime | model | recipe | parity | model bytes | ms | against fp32 | build |\n|---|---|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as name:
        for runtime in asked.runtime or ["pytorch_lite", "executorch"]:
            for model in chosen:
                one(model, runtime, Path(name), asked)


if __name__ == "__main__":
    main()
