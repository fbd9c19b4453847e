"""INT8 for CPUs: only what multiplies, that and what stands between it, or everything? Accuracy, size and latency of each.

    python -m benchmarks.tflite_scope ZOO [CASE ...] [--samples 300] [--turns 20]

ZOO as benchmarks/zoo/make.py fills it; fashion-resnet and fashion-efficientnet are trained here on the data of fashion-cnn
(benchmarks/zoo/networks/small_nets.py). One conversion and one calibration for all three; LiteRT with XNNPACK, one thread,
the files in turns in one process. The mean difference is that of the outputs from those of the float file, over its
greatest output.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import runpy
import shutil
import statistics
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

from agent.contract.archive import BundleReader
from benchmarks import machine
from benchmarks.tflite_parity import Bench, model_of, shapes_of
from benchmarks.zoo.networks import small_nets
from packager.compress.quantize import tflite
from packager.pipeline import build
from packager.recipe import NAMED
from packager.tflite_model import operator_counts, parse_model

TRAINED = ("fashion-resnet", "fashion-efficientnet")
WAYS = {"what multiplies": (), "and what is between": tflite._JOINING, "everything": None}  # noqa: SLF001 - what is judged


def train(folder: Path, source: Path, samples: int = 12000, epochs: int = 2) -> None:
    """A case like the zoo's own, with the data of `source`."""
    import numpy as np
    import torch

    folder.mkdir(parents=True)
    torch.manual_seed(0)
    net = small_nets.resnet() if "resnet" in folder.name else small_nets.efficientnet()
    with np.load(source / "train.npz") as data:
        images, labels = (torch.from_numpy(data[name][:samples]) for name in ("image", "labels"))
    steps = epochs * samples // 64
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    for step in range(steps):
        places = torch.randint(0, samples, (64,), generator=torch.Generator().manual_seed(step))
        loss = torch.nn.functional.cross_entropy(net(images[places]), labels[places])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        plan.step()
    torch.save(net.state_dict(), folder / "weights.pt")
    shutil.copy(small_nets.__file__, folder / "model.py")
    for name in ("cal.npz", "eval.npz", "metric.py"):
        shutil.copy(source / name, folder / name)


class Case:
    """The float file, its ranges, and what it answers."""

    def __init__(self, folder: Path, work: Path, samples: int) -> None:
        import numpy as np

        built = build(
            model_of(folder),
            "linux-x86-64",
            runtime="tflite",
            recipe="fp32",
            shapes=shapes_of(folder),
            output=work / "float.edgepack",
        )
        self.work, self.float = work, work / "float.tflite"
        with BundleReader(built.bundle) as reader:
            self.float.write_bytes(reader.read(built.manifest.model))
        (spec,) = built.manifest.inputs
        with np.load(folder / "cal.npz") as cal, np.load(folder / "eval.npz") as data:
            self.labels = data["labels"][:samples]
            both = (cal[spec.name], data[spec.name][:samples])
            self.names = [one.name for one in built.manifest.outputs]
            turned = [one if list(one.shape[1:]) == list(spec.shape[1:]) else np.moveaxis(one, 1, -1) for one in both]
        self.feeds = [{spec.name: one[None]} for one in turned[0]]
        self.samples = turned[1]
        self.score = runpy.run_path(str(folder / "metric.py"))["score"]
        facts = folder / "case.json"
        told = json.loads(facts.read_text(encoding="utf-8")).get("outputs", []) if facts.exists() else []
        self.judged = told or self.names
        self.truth = answers(self.float.read_bytes(), self.samples, self.names)
        everything = dataclasses.replace(NAMED["int8"], scope="all", io="int8")
        self.everything = self.quantized(everything)

    def measured(self, outputs: dict[str, Any]) -> float:
        """The case's own score."""
        return float(self.score({name: outputs[name] for name in self.judged}, self.labels))

    def quantized(self, recipe: Any) -> bytes:
        """The file of a recipe."""
        result = self.work / "made.tflite"
        tflite.quantize_tflite(self.float, result, recipe, lambda most: self.feeds[:most], lambda _: None, self.work)
        return result.read_bytes()

    def made(self, joining: tuple[str, ...] | None) -> bytes:
        """The file of one way."""
        if joining is None:
            return self.everything
        with mock.patch.object(tflite, "_JOINING", joining):
            return self.quantized(dataclasses.replace(NAMED["int8"], scope="compute", io="int8"))


def answers(raw: bytes, samples: Any, names: list[str]) -> dict[str, Any]:
    """A file's outputs as real numbers, stacked over the samples, by the names given in their order; one input."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=raw, num_threads=1)
    interpreter.allocate_tensors()
    (given,) = interpreter.get_input_details()
    rows: dict[str, list[Any]] = {name: [] for name in names}
    for one in samples:
        scale, zero = given["quantization"]
        limits = np.iinfo(given["dtype"]) if scale else None
        value = np.clip(np.round(one / scale) + zero, limits.min, limits.max) if limits else one
        interpreter.set_tensor(given["index"], value[None].astype(given["dtype"]))
        interpreter.invoke()
        for name, out in zip(names, interpreter.get_output_details(), strict=True):
            scale, zero = out["quantization"]
            row = interpreter.get_tensor(out["index"]).astype("float32")
            rows[name].append((row - zero) * scale if scale else row)
    return {name: np.concatenate(found) for name, found in rows.items()}


def apart(found: dict[str, Any], truth: dict[str, Any]) -> float:
    """The mean difference over the greatest output, the mean over the outputs."""
    return statistics.mean(float(abs(found[name] - truth[name]).mean() / abs(truth[name]).max()) for name in truth)


def raced(files: dict[str, bytes], turns: int) -> dict[str, list[float]]:
    """Milliseconds of each file's fastest call in each turn, in an order drawn anew every turn."""
    benches = {name: Bench(raw) for name, raw in files.items()}
    calls = max(3, min(100, int(15 / max(bench.fastest(2) for bench in benches.values()))))
    times: dict[str, list[float]] = {name: [] for name in files}
    draw = random.Random(0)  # noqa: S311 - an order, no secret
    for _ in range(turns):
        for name in draw.sample(list(files), len(files)):
            times[name].append(benches[name].fastest(calls))
    return times


def steps_between(raw: bytes) -> str:
    """QUANTIZE and DEQUANTIZE operators."""
    counts = Counter(operator_counts(parse_model(raw)))
    return f"{counts['QUANTIZE']}/{counts['DEQUANTIZE']}"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoo", type=Path)
    parser.add_argument("cases", nargs="*", default=["mobilenetv2-fashion", "ppocr-cls", "orientation", *TRAINED])
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--turns", type=int, default=20)
    options = parser.parse_args()
    print(f"`{machine.command()}`, {machine.facts()}; {machine.load()}\n", flush=True)
    machine.header(
        "case",
        "INT8",
        "score fp32 / INT8",
        "mean difference",
        "MB",
        "QUANTIZE/DEQUANTIZE",
        "ms",
        "to fp32",
    )
    for name in options.cases:
        with tempfile.TemporaryDirectory(prefix="edgepack-scope-") as text:
            work = Path(text)
            folder = options.zoo / name
            if name in TRAINED:
                folder = work / name
                train(folder, options.zoo / "fashion-cnn")
            report(Case(folder, work, options.samples), name, options.turns)


def report(case: Case, name: str, turns: int) -> None:
    """The case's rows."""
    files = {"fp32": case.float.read_bytes(), **{way: case.made(joining) for way, joining in WAYS.items()}}
    times = raced(files, turns)
    whole = case.measured(case.truth)
    for way in WAYS:
        found = answers(files[way], case.samples, case.names)
        ratio = statistics.median(a / b for a, b in zip(times[way], times["fp32"], strict=True))
        machine.row(
            name,
            way,
            f"{whole:.3f} / {case.measured(found):.3f}",
            f"{apart(found, case.truth):.4f}",
            f"{len(files[way]) / 1e6:.2f}",
            steps_between(files[way]),
            f"{min(times[way]):.3f} ({statistics.median(times[way]):.3f})",
            f"{ratio:.3f}",
        )


if __name__ == "__main__":
    main()
