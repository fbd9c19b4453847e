"""INT8 on real models: fp32, blind per channel, blind per tensor, and edgepack's search, on samples that it never saw.

    python -m benchmarks.int8_accuracy ZOO [CASE ...] [--runtime onnxruntime] [--minutes 20] [--samples 400]
        [--only edgepack] [--target linux-x86-64]

ZOO is the folder that benchmarks/zoo/make.py filled. Of each case's evaluation samples the even ones are the search's, the
odd ones the test's. Minutes are of the clock, and of the processor.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from agent.contract.archive import BundleReader
from agent.contract.errors import EdgepackError
from packager.accuracy import gate
from packager.pipeline import Built, build

# As onnxruntime's quantiser does it, left to itself: every operator that it knows.
BLIND = {
    "per channel": 'precision = "int8"\nscope = "all"\n',
    "per tensor": 'precision = "int8"\nscope = "all"\nper_channel = false\n',
}


PLANS = (*(f"blind {words}" for words in BLIND), "edgepack")


def split(case: Path, folder: Path, samples: int) -> tuple[Path, Path]:
    """The search's samples and the test's, half of `samples` each at most."""
    import numpy as np

    with np.load(case / "eval.npz") as data:
        arrays = {name: data[name] for name in data.files}
    paths = []
    for name, first in (("search", 0), ("test", 1)):
        path = folder / f"{name}.npz"
        np.savez(path, **{key: value[first::2][: samples // 2] for key, value in arrays.items()})
        paths.append(path)
    return paths[0], paths[1]


def shapes_of(case: Path, model: str, runtime: str) -> tuple[str, ...]:
    """One sample's, where the runtime wants them fixed and the file leaves them free."""
    import numpy as np

    if runtime == "onnxruntime" or not model.endswith(".onnx"):
        return ()
    with np.load(case / "cal.npz") as data:
        return tuple(f"{name}=1x{'x'.join(map(str, data[name].shape[1:]))}" for name in data.files)


def model_of(case: Path) -> str:
    """The case's model as edgepack names it."""
    if (case / "model.py").exists():
        return f"{case / 'model.py'}:build"
    return str(next(case.glob("model.*")))


def score_once() -> None:
    """The original's outputs on the same samples are computed once for all rows, as a user with one build has it."""
    module: Any = gate
    score = module.original_score
    kept: dict[tuple[str, str, str], Any] = {}

    def scored(artifact: Any, data: Any, metric: Any) -> Any:
        key = (artifact.digest, data.digest(), metric.name)
        if key not in kept:
            kept[key] = score(artifact, data, metric)
        return kept[key]

    module.original_score = scored


def row(words: str, built: Built, seconds: float, cpu: float) -> dict[str, Any]:
    """What a build says of itself."""
    facts = built.manifest.facts
    told = facts["accuracy"]
    return {
        "what": words,
        "fp32": told["original"],
        "score": told["bundle"],
        "n": told["n"],
        "drop": told["drop_points"],
        "interval": told["drop_interval"],
        "bytes": built.manifest.files[built.manifest.model].size,
        "share": facts.get("int8_share"),
        "tried": sum("score" in step for step in facts.get("search", [])),
        "float": len(built.manifest.recipe["exclude"]),
        "seconds": seconds,
        "cpu": cpu,
    }


def measure(
    case: Path,
    runtime: str,
    minutes: float,
    samples: int,
    wanted: tuple[str, ...] = PLANS,
    target: str = "linux-x86-64",
) -> list[dict[str, Any]]:
    """The rows of one case; a build that fails is a row with its error."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="edgepack-zoo-") as folder:
        search, test = split(case, Path(folder), samples)
        common: dict[str, Any] = {
            "target": target,
            "runtime": runtime,
            "shapes": shapes_of(case, model_of(case), runtime),
            "calibration": str(case / "cal.npz"),
            "eval": str(search),
            "test": str(test),
            "metric": f"{case / 'metric.py'}:score" if (case / "metric.py").exists() else None,
            "output": Path(folder) / "out.edgepack",
        }
        for words, text in BLIND.items():
            (Path(folder) / f"{words.replace(' ', '-')}.toml").write_text(text, encoding="utf-8")
        plans: list[tuple[str, dict[str, Any]]] = [
            *(
                (
                    f"blind {words}",
                    {
                        "recipe": str(Path(folder) / f"{words.replace(' ', '-')}.toml"),
                        "search_minutes": 0.0,
                        "allow_drop": True,
                    },
                )
                for words in BLIND
            ),
            ("edgepack", {"recipe": "int8", "max_drop": 1.0, "allow_drop": True, "search_minutes": minutes}),
        ]
        for words, options in plans:
            if words not in wanted:
                continue
            start, cpu = time.monotonic(), time.process_time()
            try:
                built = build(
                    model_of(case), **{**common, **options}, progress=lambda text: print(f"    {text}", flush=True)
                )
            except EdgepackError as error:
                rows.append({"what": words, "error": error.what[:200]})
                continue
            rows.append(row(words, built, time.monotonic() - start, time.process_time() - cpu))
            with BundleReader(built.bundle) as reader:
                assert reader.manifest.facts["accuracy"]["bundle"] == rows[-1]["score"]
            print(f"{case.name}: {json.dumps(rows[-1])}", flush=True)
    return rows


def line(case: str, one: dict[str, Any]) -> str:
    """A row of the table."""
    if "error" in one:
        return f"| {case} | {one['what']} | {one['error']} | | | | | | | | |"
    low, high = one["interval"] or (None, None)
    sure = "" if low is None else f" ({low:+.1f} to {high:+.1f})"
    share = one["share"] or {"macs": 0, "weights": 0}
    return (
        f"| {case} | {one['what']} | {one['fp32']:.3f} | {one['score']:.3f} | {one['drop']:+.1f}{sure} | "
        f"{one['n']} | {one['bytes'] / 1e6:.2f} | {share['macs']:.0%} / {share['weights']:.0%} | {one['float']} | "
        f"{one['tried'] or '-'} | {one['seconds'] / 60:.1f} / {one['cpu'] / 60:.1f} |"
    )


def main() -> None:
    """Prints the table; every row also as JSON while it runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoo", type=Path)
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--target", default="linux-x86-64", help="a profile that has the runtime")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--only", choices=PLANS, help="this row of each case")
    options = parser.parse_args()
    wanted = (options.only,) if options.only else PLANS
    score_once()
    names = options.cases or sorted(path.parent.name for path in options.zoo.glob("*/case.json"))
    table = []
    for name in names:
        found = measure(options.zoo / name, options.runtime, options.minutes, options.samples, wanted, options.target)
        table += [line(name, one) for one in found]
    print(
        "| case | what | fp32 | INT8 | points lost (95 %) | n | MB | INT8 mult-adds / weights | float | scored | minutes |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    print("\n".join(table))


if __name__ == "__main__":
    main()
