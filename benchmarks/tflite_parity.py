"""TFLite on real models: parity in every precision, superfluous operators and latency beside the raw libraries' files.

    python -m benchmarks.tflite_parity ZOO [CASE ...] [--turns 40] [--samples 300] [--recipes fp32,int8] [--no-raw]

ZOO is the folder that benchmarks/zoo/make.py filled. Of every case: cosine and score of each precision against the original
on the case's own samples; TRANSPOSE and PAD operators; and the time of one inference, ours and the raw file's in turns in one
process (LiteRT with XNNPACK, one thread), as the ratio of each turn's fastest call.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from agent.contract.archive import BundleReader
from agent.contract.errors import EdgepackError
from benchmarks import machine, tflite_raw
from packager.accuracy.dataset import load_eval
from packager.accuracy.evaluate import bundle_model, run_lowered, run_source
from packager.accuracy.metric import load_metric
from packager.pipeline import build, find_source
from packager.tflite_model import operator_counts, parse_model

RECIPES = ("fp32", "fp16", "int8-dynamic", "int8", "int16x8")
SLOW = {"int16x8": 50}  # reference kernels: so many samples must do


def model_of(case: Path) -> str:
    """The case's model as edgepack names it."""
    return f"{case / 'model.py'}:build" if (case / "model.py").exists() else str(source_file(case))


def source_file(case: Path) -> Path:
    """The case's model file."""
    kinds = (".py", ".onnx", ".h5", ".keras", ".tflite")
    return next(path for path in sorted(case.glob("model.*")) if path.suffix in kinds)


def shapes_of(case: Path) -> tuple[str, ...]:
    """ONNX models with free sizes are fixed as the case's data are."""
    if not (case / "model.onnx").exists():
        return ()
    facts = json.loads((case / "case.json").read_text(encoding="utf-8")).get("inputs", [])
    return tuple(f"{one['name']}={'x'.join(map(str, one['shape']))}" for one in facts)


def cosine(left: Any, right: Any) -> float:
    """The least over the samples of the cosine of all their values."""
    import numpy as np

    pairs = zip(left.reshape(len(left), -1).astype(float), right.reshape(len(right), -1).astype(float), strict=True)
    return min(float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-30)) for a, b in pairs)


def moved(raw: bytes) -> str:
    """TRANSPOSE and PAD operators of a file."""
    counts = operator_counts(parse_model(raw))
    return f"{counts['TRANSPOSE']}/{counts['PAD'] + counts['PADV2']}"


class Bench:
    """A file ready to run again and again on random inputs."""

    def __init__(self, raw: bytes) -> None:
        import numpy as np
        from ai_edge_litert.interpreter import Interpreter

        self.interpreter = Interpreter(model_content=raw, num_threads=1)
        self.interpreter.allocate_tensors()
        rng = np.random.default_rng(0)
        for one in self.interpreter.get_input_details():
            shape, dtype = one["shape"], one["dtype"]
            value = rng.standard_normal(shape) if np.dtype(dtype).kind == "f" else rng.integers(0, 100, shape)
            self.interpreter.set_tensor(one["index"], value.astype(dtype))
        for _ in range(3):
            self.fastest(1)

    def fastest(self, calls: int) -> float:
        """The fastest of so many calls, in milliseconds."""
        best = float("inf")
        for _ in range(calls):
            start = time.perf_counter_ns()
            self.interpreter.invoke()
            best = min(best, (time.perf_counter_ns() - start) / 1e6)
        return best


def race(ours: bytes, raw: bytes, turns: int) -> tuple[float, float, float, tuple[float, float]]:
    """Milliseconds of both, the median ratio ours/raw over the turns, and its 95 % bootstrap interval."""
    left, right = Bench(ours), Bench(raw)
    calls = max(3, min(200, int(20 / max(left.fastest(2), 1e-3))))
    pairs = []
    for turn in range(turns):
        order = (left, right) if turn % 2 == 0 else (right, left)
        times = {id(one): one.fastest(calls) for one in order}
        pairs.append((times[id(left)], times[id(right)]))
    ratios = [a / b for a, b in pairs]
    rng = random.Random(0)  # noqa: S311 - a bootstrap, no secret
    draws = sorted(statistics.median(rng.choices(ratios, k=len(ratios))) for _ in range(1000))
    return (
        min(a for a, _ in pairs),
        min(b for _, b in pairs),
        statistics.median(ratios),
        (draws[25], draws[974]),
    )


class Case:
    """One model of the zoo: the original's answers, and the raw libraries' files."""

    def __init__(self, folder: Path, samples: int, work: Path, *, with_raw: bool = True) -> None:
        import numpy as np

        self.folder, self.work = folder, work
        with np.load(folder / "eval.npz") as data:
            np.savez(work / "eval.npz", **{name: data[name][:samples] for name in data.files})
        source = find_source(model_of(folder))
        shapes = {
            name: tuple(int(size) for size in shape.split("x"))
            for name, _, shape in (one.partition("=") for one in shapes_of(folder))
        }
        artifact = source.open(model_of(folder), {"shapes": shapes, "output_names": ()})
        self.data = load_eval(work / "eval.npz", artifact.inputs)
        script = folder / "metric.py"  # without one: agreement with the original
        self.metric = load_metric(f"{script}:score" if script.exists() else None, self.data)
        self.truth = run_source(artifact, self.data)
        self.raw = tflite_raw.make(source_file(folder), folder / "cal.npz", work) if with_raw else {}

    def row(self, recipe: str, turns: int, scope: str = "") -> dict[str, Any]:
        """One recipe's numbers. Raises EdgepackError where the build does."""
        wanted = recipe
        if scope:
            path = self.work / "scope.toml"
            path.write_text(f'precision = "int8"\nscope = "{scope}"\n', encoding="utf-8")
            wanted = str(path)
        start = time.monotonic()
        built = build(
            model_of(self.folder),
            "linux-x86-64",
            runtime="tflite",
            recipe=wanted,
            calibration=str(self.folder / "cal.npz") if recipe in ("int8", "int16x8") else None,
            shapes=shapes_of(self.folder),
            output=self.work / "ours.edgepack",
        )
        seconds = time.monotonic() - start
        place = Path(tempfile.mkdtemp(dir=self.work))
        with BundleReader(built.bundle) as reader:
            ours = reader.read(built.manifest.model)
            (place / "model.tflite").write_bytes(ours)
        row: dict[str, Any] = {"case": self.folder.name, "recipe": f"{recipe} {scope}".strip(), "seconds": seconds}
        row |= {"bytes": len(ours), "moved": moved(ours), **self._right(recipe, built.manifest)}
        raw = self.raw.get("fp32" if recipe == "fp32" else "int8")
        if recipe in ("fp32", "int8") and raw is not None:
            row["raw_moved"] = moved(raw.read_bytes())
            row["ms"], row["raw_ms"], row["ratio"], row["interval"] = race(ours, raw.read_bytes(), turns)
        return row

    def _right(self, recipe: str, manifest: Any) -> dict[str, Any]:
        with BundleReader(self.work / "ours.edgepack") as reader:
            folder = Path(tempfile.mkdtemp(dir=self.work))
            reader.extract(folder)
        model = bundle_model(manifest, folder)
        most = min(SLOW.get(recipe, len(self.data)), len(self.data))
        data = self.data.part(range(most))
        outputs = run_lowered(model, data)
        truth = {name: array[:most] for name, array in self.truth.items()}
        least = min(cosine(outputs[name], truth[name]) for name in truth)
        score, original = (self.metric.measure(one, data.labels, truth).score for one in (outputs, truth))
        return {"cosine": least, "score": score, "fp32": original, "samples": most}


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    if "error" in row:
        return f"| {row['case']} | {row['recipe']} | {row['error']} | | | | | |"
    if "ratio" in row:
        low, high = row["interval"]
        raced = f"{row['ms']:.3f} / {row['raw_ms']:.3f} | {row['ratio']:.3f} ({low:.3f} to {high:.3f})"
    else:
        raced = "- | -"
    return (
        f"| {row['case']} | {row['recipe']} ({row['samples']}) | {row['cosine']:.6f} | "
        f"{row['fp32']:.3f} / {row['score']:.3f} | "
        f"{row['bytes'] / 1e6:.2f} | {row['moved']} / {row.get('raw_moved', '-')} | {raced} |"
    )


def main() -> None:
    """Prints the table; every row also as JSON while it runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoo", type=Path)
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--recipes", default=",".join(RECIPES))
    parser.add_argument("--no-raw", action="store_true", help="without the raw libraries' files")
    parser.add_argument("--scope", default="", help="also INT8 with this scope: all")
    options = parser.parse_args()
    names = options.cases or sorted(path.parent.name for path in options.zoo.glob("*/case.json"))
    rows = []
    print(machine.facts(), machine.load(), sep="\n", flush=True)
    for name in names:
        with tempfile.TemporaryDirectory(prefix="edgepack-tflite-") as folder:
            case = Case(options.zoo / name, options.samples, Path(folder), with_raw=not options.no_raw)
            for recipe in options.recipes.split(","):
                for scope in ["", options.scope] if recipe == "int8" and options.scope else [""]:
                    try:
                        rows.append(case.row(recipe, options.turns, scope))
                    except EdgepackError as error:
                        rows.append({"case": name, "recipe": recipe, "error": error.what[:200]})
                    print(json.dumps(rows[-1]), flush=True)
    print(
        "| case | recipe (samples) | least cosine | score fp32 / ours | MB "
        "| TRANSPOSE/PAD, ours / raw | ms ours / raw | ratio |"
    )
    print("|---|---|---|---|---|---|---|---|")
    print("\n".join(line(row) for row in rows))


if __name__ == "__main__":
    main()
